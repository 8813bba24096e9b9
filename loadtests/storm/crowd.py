"""Fires requests, many at once, and keeps what goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiohttp

from loadtests.measure.client import Client
from loadtests.storm.judge import Answer, WrongAnswerError, judge
from loadtests.storm.shot import Shot

CONCURRENCY = 24
END_SECONDS = 600
"""Longest wait for an answer: Triton's interpreter takes minutes for the lens of a crowd."""
MOST_FAILURES = 8
"""After which a storm ends early."""
DEAD = "the engine is dead"


@dataclass(frozen=True)
class Failure:
    """A request that went wrong, and those that were in the server with it."""

    shot: Shot
    signature: str
    shown: str
    crowd: tuple[Shot, ...]


@dataclass
class Storm:
    """The events of one storm."""

    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    flying: dict[int, Shot] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Say whether going on would show nothing new."""
        return len(self.failures) >= MOST_FAILURES or any(
            failure.signature == DEAD for failure in self.failures
        )


async def rage(
    client: Client,
    url: str,
    make: Callable[[int], Shot],
    seconds: float,
    concurrency: int = CONCURRENCY,
) -> Storm:
    """Fire the requests ``make(0)``, ``make(1)`` and so on, so many at once, for some seconds."""
    started = time.monotonic()
    storm, numbers = Storm(0.0), itertools.count()

    async def fire_on() -> None:
        while time.monotonic() < started + seconds and not storm.is_over:
            await _fire_in(storm, client, url, make(next(numbers)))

    await asyncio.gather(*(fire_on() for _ in range(concurrency)))
    storm.seconds = time.monotonic() - started
    return storm


async def _fire_in(storm: Storm, client: Client, url: str, shot: Shot) -> None:
    storm.flying[shot.number] = shot
    crowd = tuple(storm.flying.values())
    try:
        storm.outcomes[await fire(client, url, shot)] += 1
    except WrongAnswerError as wrong:
        storm.outcomes["wrong"] += 1
        storm.failures.append(Failure(shot, wrong.signature, str(wrong), crowd))
    finally:
        del storm.flying[shot.number]


async def together(client: Client, url: str, shots: Iterable[Shot]) -> set[str]:
    """Fire requests at once; return the signatures of what went wrong."""

    async def signature(shot: Shot) -> str | None:
        try:
            await fire(client, url, shot)
        except WrongAnswerError as wrong:
            return wrong.signature
        return None

    ended = await asyncio.gather(*(signature(shot) for shot in shots))
    return {each for each in ended if each is not None}


async def fire(client: Client, url: str, shot: Shot) -> str:
    """Send a request and return what became of it.

    Raises:
        WrongAnswerError: what must not.

    """
    try:
        async with asyncio.timeout(shot.patience or END_SECONDS):
            return judge(shot, await _answer(client, url, shot))
    except TimeoutError:
        if shot.patience is None:
            raise WrongAnswerError("no end of the answer", f"{END_SECONDS} s") from None
        return "left by its client"
    except aiohttp.ClientError as error:
        if not await is_alive(client, url):
            raise WrongAnswerError(DEAD, repr(error)) from None
        raise WrongAnswerError("a broken connection", repr(error)) from None
    except WrongAnswerError:
        if not await is_alive(client, url):
            raise WrongAnswerError(DEAD) from None
        raise


async def _answer(client: Client, url: str, shot: Shot) -> Answer:
    headers = {"content-type": "application/json", **shot.headers}
    sent = client.session.request(
        shot.method, url + shot.path, data=shot.content or None, headers=headers
    )
    async with sent as answer:
        content = await answer.read()
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, answer.content_type, content, lower)


async def is_alive(client: Client, url: str) -> bool:
    """Say whether the server answers and its engine lives."""
    try:
        async with client.session.get(f"{url}/health") as answer:
            return answer.ok
    except aiohttp.ClientError:
        return False
