"""The extra time of the first request with logprobs after a start, over the second."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.cases.chats import TOPICS, chat, with_logprobs
from loadtests.measure.client import Client
from loadtests.measure.results import SECONDS, Result, at_most
from loadtests.measure.servers import SENSEFIELD, STOCK, Server
from loadtests.measure.stock import attempt

STALL = "stall"
TITLE = "first request with logprobs, longer than the second by"
_TOKENS = 8
_NO_STALL_SECONDS = 0.1
"""Seconds that a person does not notice."""


async def measure_stall(client: Client, servers: Mapping[str, Server]) -> Result:
    """Ask servers that have just started, and were never asked for logprobs."""
    ours = await _ask(client, servers[SENSEFIELD].url)
    stock = await attempt(_ask(client, servers[STOCK].url))
    shown = "failed" if stock is None else f"{stock[0] - stock[1]:.2f} s"
    print(f"stall: sensefield {ours[0] - ours[1]:.2f} s, stock {shown}", flush=True)
    return Result(
        STALL,
        TITLE,
        at_most(_NO_STALL_SECONDS, SECONDS),
        [ours[0] - ours[1]],
        [] if stock is None else [stock[0] - stock[1]],
        stock_failed=stock is None,
        raw={"first_and_second_seconds": {SENSEFIELD: ours, STOCK: stock}},
    )


async def _ask(client: Client, url: str) -> tuple[float, float]:
    """Return the seconds of the first and the second request."""
    for _ in range(2):  # so that all but the logprobs is warm
        await client.run(url, [chat(TOPICS[0], _TOKENS)])
    first, second = [(await client.run(url, with_logprobs(_TOKENS, 20))).seconds for _ in range(2)]
    return first, second
