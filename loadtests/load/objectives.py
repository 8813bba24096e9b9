"""Objectives of service, and what users saw held against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.measure.latency import percentile


@dataclass(frozen=True)
class Sample:
    """The outcome of one request."""

    kind: str
    group: str
    users: int
    """Users there were from its start to its end; 0 if their number changed meanwhile."""
    seconds: float
    tokens: int = 0
    ttft: float = 0.0
    """Seconds to its first token."""
    itls: Sequence[float] = ()
    """Seconds between its tokens."""
    error: str = ""


@dataclass(frozen=True)
class Objectives:
    """Limits: 99 of 100 first tokens, and of 100 gaps between tokens, come within so long."""

    ttft_seconds: float
    itl_seconds: float
    error_share: float

    def missed(self, samples: Sequence[Sample]) -> list[str]:
        """Say which limits are not kept; no request at all keeps none."""
        if not samples:
            return ["no request ended"]
        served = [sample for sample in samples if not sample.error]
        errors = 1 - len(served) / len(samples)
        ttft = percentile([sample.ttft for sample in served], 99)
        itl = percentile([gap for sample in served for gap in sample.itls], 99)
        found = []
        if errors > self.error_share:
            found.append(f"errors {errors:.1%} > {self.error_share:.1%}")
        if ttft is not None and ttft > self.ttft_seconds:
            found.append(f"p99 TTFT {ttft * 1e3:.0f} > {self.ttft_seconds * 1e3:.0f} ms")
        if itl is not None and itl > self.itl_seconds:
            found.append(f"p99 ITL {itl * 1e3:.0f} > {self.itl_seconds * 1e3:.0f} ms")
        return found
