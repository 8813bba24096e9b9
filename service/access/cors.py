"""Pages of other origins: which requests are their browsers' own."""

from __future__ import annotations

from starlette.types import Scope


def is_preflight(scope: Scope) -> bool:
    """Say whether a browser asks if it may send a request: no route sees it, and it has no key."""
    names = {name for name, _ in scope["headers"]}
    is_asking = names >= {b"origin", b"access-control-request-method"}
    return scope.get("method") == "OPTIONS" and is_asking
