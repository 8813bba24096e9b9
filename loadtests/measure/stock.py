"""Stock vLLM is compared with where it works: it may fail where Sensefield does not.

On a CPU without a C++ compiler, for one, its first request with logprobs ends its engine.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TypeVar

from loadtests.measure.client import FAILURES

Outcome = TypeVar("Outcome")


async def attempt(doing: Awaitable[Outcome]) -> Outcome | None:
    """Return the outcome, or None, with a line that says why, if the server failed."""
    try:
        return await doing
    except FAILURES as error:
        print(f"stock vLLM failed: {error!r}", file=sys.stderr, flush=True)
        return None
