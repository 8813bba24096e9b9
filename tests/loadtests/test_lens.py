"""The lens beside chats: turns, what is read, and the page."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.lens import lens_markdown, measure_lens
from loadtests.measure.client import Request, RequestError, Run
from loadtests.measure.results import Result, at_least
from tests.loadtests.pages import MACHINE


class Chats:
    """Answers at once, slower while a lens is read."""

    def __init__(self, *, ok: bool = True) -> None:
        self.ok = ok
        self.session = self
        self.reading = False
        self.prompts: list[str] = []

    async def run(self, _url: str, requests: list[Request]) -> Run:
        await asyncio.sleep(0)  # lets the lens begin, as sending does
        beside, self.reading = self.reading, False
        return Run(sum(r.tokens for r in requests), 2.5 if beside else 2.0, 0, 0.0)

    @asynccontextmanager
    async def post(self, url: str, json: dict[str, Any]) -> Any:
        assert url == "http://server/v1/lens"
        self.reading = True
        self.prompts.append(json["prompt"])

        async def told() -> Any:
            return {"layers": [0, 1, 2], "positions": [0, 1], "error": "no"}

        yield SimpleNamespace(ok=self.ok, status=503, json=told)


class Idle:
    url = "http://server"

    async def settled(self) -> None:
        pass


async def measured(chats: Chats) -> Result:
    client: Any = chats
    server: Any = Idle()
    return await measure_lens(client, server, 16, 3)


async def test_each_round_has_a_lens_and_no_text_twice() -> None:
    chats = Chats()
    result = await measured(chats)
    assert result.measured == [0.8, 0.8, 0.8]
    assert "a lens of 6 cells" in result.title
    assert len(set(chats.prompts)) == 4  # a warm-up and three rounds
    assert not result.is_met


async def test_a_refused_lens_is_no_measurement() -> None:
    with pytest.raises(RequestError, match="503"):
        await measured(Chats(ok=False))


def test_the_page_tells_both_ratios() -> None:
    lens = Result("lens", "beside", at_least(0.9), [0.95, 0.91, 0.97])
    lens.raw["lens_seconds"] = [1.0, 3.0, 2.0]
    idle = Result("plain", "idle", at_least(1.0), [1.01, 0.98, 1.0])
    settings = {"tokens": 96, "rounds": 3, "command": "python -m loadtests.lens"}
    page = lens_markdown([lens, idle], settings, MACHINE)
    assert "2.00 s (1.00 to 3.00)" in page
    assert "0.910 to 0.970" in page
    assert "idle" in page
    assert page.endswith("`python -m loadtests.lens`\n")
