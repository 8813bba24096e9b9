"""Sensefield's own Prometheus series, served on ``/metrics`` beside vLLM's.

Base units, ``_total`` on counters, and only labels whose values are few and known.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from service.errors import SaturatedError, StoreFullError

REQUESTS = Counter(
    "sensefield_requests",
    "Requests to chat, completions, score and lens by outcome: ok, client_error, cancelled, "
    "unavailable (503), deadline (took longer than it may) or server_error.",
    ["route", "outcome"],
)
REJECTED = Counter(
    "sensefield_rejected_requests",
    "Requests that were refused, or cut off for being late, by HTTP status and error type.",
    ["status", "reason"],
)
for _refusal, _reason in (
    (SaturatedError, SaturatedError.type),
    (SaturatedError, SaturatedError.QUEUE_FULL),
    (SaturatedError, SaturatedError.BODIES_FULL),
    (SaturatedError, SaturatedError.BUDGET_EXHAUSTED),
    (SaturatedError, SaturatedError.PATTERNS_FULL),
    (StoreFullError, StoreFullError.type),
):
    # Create the series at the start: Prometheus sees no increase in a series that begins at 1.
    REJECTED.labels(str(_refusal.status), _reason)
CONTROLLED = Counter(
    "sensefield_controlled_requests",
    "Requests that used a kind of control.",
    ["kind"],
)
ROWS = Counter(
    "sensefield_distribution_rows",
    "Rows of distributions sent, one per token and stage, the prompt's included.",
    ["stage", "encoding"],
)
ROW_BYTES = Counter(
    "sensefield_distribution_bytes",
    "Bytes of distributions before encoding: log-probabilities and token ids.",
    ["stage", "encoding"],
)
ENCODE_SECONDS = Histogram(
    "sensefield_encode_seconds",
    "Time to encode the rows of one chunk or answer.",
    ["encoding"],
    buckets=(5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1, 1.0),
)
SLOW_READERS = Counter(
    "sensefield_slow_readers",
    "Streams ended because their reader took nothing for the send timeout.",
)
KL_NATS = Histogram(
    "sensefield_kl_nats",
    "KL divergence of the controlled from the base distribution of a generated token, of requests "
    "that control logits and ask for both stages. Not of those that steer the residual stream, "
    "which acts before both.",
    buckets=(1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
)
VECTORS = Gauge(
    "sensefield_vectors",
    "Steering vectors: names stored, contents resident in the engine.",
    ["state"],
    multiprocess_mode="max",
)
LEASES = Gauge(
    "sensefield_vector_leases",
    "Vectors that running requests hold, each counted once for every request and every place.",
    multiprocess_mode="livesum",
)
HELD = Gauge(
    "sensefield_held",
    "Held in the workers for running requests: control programs, bytes of their text patterns, "
    "places of the vectors that they steer logits with. At most some seconds old.",
    ["kind"],
    multiprocess_mode="mostrecent",
)
for _kind in ("programs", "pattern_bytes", "vectors"):
    HELD.labels(_kind)
IN_FLIGHT = Gauge(
    "sensefield_in_flight_requests",
    "Requests to chat, completions, score and lens that have not ended.",
    multiprocess_mode="livesum",
)
QUEUED = Gauge(
    "sensefield_queued_requests",
    "Streamed requests accepted whose first token has not come yet.",
    multiprocess_mode="livesum",
)
PATTERN_BYTES = Gauge(
    "sensefield_pattern_bytes",
    "Bytes of different text patterns of requests that have not ended.",
    multiprocess_mode="livesum",
)
PROMISED_BYTES = Gauge(
    "sensefield_distribution_promised_bytes",
    "Bytes of rows promised to running requests.",
    multiprocess_mode="livesum",
)
