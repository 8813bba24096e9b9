"""The roles that a path needs; a path without a role needs ``admin``."""

from __future__ import annotations

ADMIN = "admin"
ROLES = ("inference", "vectors", "metrics", ADMIN)
LIVENESS = "/health"
PAGE = "/playground"
"""The page's files, which need no key: a browser loads them before it can send one."""
ROOT = "/"
"""A redirect to the page."""
VECTORS = "/v1/vectors"

_METRICS = ("/metrics", "/load", "/ready", "/version")
_READS = ("GET", "HEAD")
_INFERENCE = (
    "/classify",
    "/detokenize",
    "/docs",
    "/invocations",
    "/openapi.json",
    "/ping",
    "/pooling",
    "/ready",
    "/redoc",
    "/rerank",
    "/score",
    "/tokenize",
    "/v1/audio",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/lens",
    "/v1/messages",
    "/v1/models",
    "/v1/realtime",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
    "/v1/tokens",
    "/v2/rerank",
    "/version",
)


def needs_key(path: str) -> bool:
    """Say whether a path, as the router sees it, needs a key."""
    return path not in (LIVENESS, ROOT) and not is_below(path, PAGE)


def allowed_roles(method: str, path: str) -> frozenset[str]:
    """Return the roles that may use a path, as the router sees it; one of them suffices."""
    allowed = {ADMIN}
    if is_below(path, *_METRICS):
        allowed.add("metrics")
    if is_below(path, *_INFERENCE):
        allowed.add("inference")
    if is_below(path, VECTORS):
        allowed |= {"inference", "vectors"} if method in _READS else {"vectors"}
    return frozenset(allowed)


def is_below(path: str, *tops: str) -> bool:
    """Say whether a path is one of the others, or below one of them."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)
