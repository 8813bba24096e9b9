"""JSON of vLLM's routes, which its framework writes while no other request gets an answer."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import JSONResponse

_stock = JSONResponse.render


def render(self: JSONResponse, content: Any) -> bytes:
    """Return a body in a tenth of the time; of what orjson does not take as stock does."""
    try:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return _stock(self, content)


def install() -> None:
    """Have every JSON response of this process written so."""
    JSONResponse.render = render  # type: ignore[method-assign]
