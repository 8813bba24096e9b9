"""Cross-origin requests: a browser's preflights, and the headers that let a page read an answer.

vLLM's CORSMiddleware stands behind the door: it answers preflights, and adds its headers to the
answers from behind it. The door's own answers get theirs here, by the same flags.
"""

from __future__ import annotations

from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]
EXPOSED = (
    b"x-request-id, request-id, etag, retry-after, x-should-retry, x-sensefield-ignored-fields"
)
"""Headers that a script may read beside the CORS-safelisted ones."""
_ALLOW = b"access-control-allow-origin"
_ASKING = {b"origin", b"access-control-request-method"}


def is_preflight(scope: Scope) -> bool:
    """Say whether a request is a browser's preflight, which has no key and reaches no route."""
    if scope.get("method") != "OPTIONS":
        return False
    return {name for name, _ in scope["headers"]} >= _ASKING


def cors_headers(scope: Scope, headers: Headers) -> Headers:
    """Return the CORS headers that an answer to an allowed origin lacks.

    Args:
        scope: the request's.
        headers: the answer's.

    """
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
    args = getattr(getattr(scope.get("app"), "state", None), "args", None)
    if origin is None or args is None:
        return []
    is_open = "*" in args.allowed_origins
    if not is_open and origin.decode("latin-1") not in args.allowed_origins:
        return []
    have = {name.lower() for name, _ in headers}
    added = [(b"access-control-expose-headers", EXPOSED)]
    if _ALLOW not in have:
        any_origin = is_open and not args.allow_credentials
        added.append((_ALLOW, b"*" if any_origin else origin))
        if args.allow_credentials:
            added.append((b"access-control-allow-credentials", b"true"))
        if not any_origin and b"vary" not in have:
            added.append((b"vary", b"Origin"))
    return added
