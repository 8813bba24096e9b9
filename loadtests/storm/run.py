"""A storm from its first vector to what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from loadtests.measure.client import Client
from loadtests.measure.deadline import Deadline
from loadtests.storm.crowd import CONCURRENCY, DEAD, Storm, fire, is_alive, rage, together
from loadtests.storm.generate import shot
from loadtests.storm.judge import WrongAnswerError
from loadtests.storm.leftovers import OF_VECTORS, leftovers, metrics, watching
from loadtests.storm.shot import Shot
from loadtests.storm.shrink import Shrinker
from loadtests.storm.target import Target
from loadtests.storm.vectors import first_vectors, last_deletions

Place = Callable[[], Awaitable[str]]
"""Returns the URL of a server that lives: another one where the last has died."""
PREEMPTIONS = "vllm:num_preemptions_total"
_GONE_SECONDS, _BETWEEN_SECONDS = 60.0, 0.2


@dataclass(frozen=True)
class Options:
    """The length and load of a storm."""

    seconds: float
    seed: int = 1
    concurrency: int = CONCURRENCY
    most_tokens: int = 40
    patience: float = 2.0
    shrink_seconds: float = 300.0
    """For all failures together."""


@dataclass
class Result:
    """The result of a storm."""

    options: Options
    storm: Storm
    preemptions: float = 0.0
    most: dict[str, float] = field(default_factory=dict)
    """The most that the server held at once, by metric: one that is always 0 cannot show a leak."""
    left: dict[str, float] = field(default_factory=dict)
    shrunk: dict[str, list[Shot]] = field(default_factory=dict)
    """By the signature of a failure, the smallest requests that show it."""

    @property
    def passed(self) -> bool:
        """Say whether each request was answered, and nothing is held for them."""
        return not (self.storm.failures or self.left)

    def summary(self) -> str:
        """Return it in a line."""
        counts = ", ".join(f"{count} {name}" for name, count in self.storm.outcomes.most_common())
        left = ", ".join(f"{name} {value:g}" for name, value in self.left.items())
        return (
            f"{self.storm.outcomes.total()} requests in {self.storm.seconds:.0f} s: {counts}; "
            f"{self.preemptions:.0f} preempted; {left or 'nothing'} left"
        )

    def report(self) -> str:
        """Return the line, and each kind of failure with the requests that show it."""
        lines = [f"seed {self.options.seed}: {self.summary()}"]
        seen = {failure.signature: failure for failure in reversed(self.storm.failures)}
        for signature, failure in seen.items():
            shots = self.shrunk.get(signature)
            lines.append(f"\n{failure.shown[:1000]}")
            lines.append("shrunk to:" if shots else f"not shrunk, beside {len(failure.crowd)}:")
            lines += [one.shown()[:4000] for one in shots or [failure.shot]]
        return "\n".join(lines)


async def storm(client: Client, place: Place, options: Options) -> Result:
    """Run a storm; shrink what goes wrong in it."""
    url = await place()
    await _clear(client, url)
    before = await metrics(client, url)
    target = await _prepared(client, url, options)
    make = partial(shot, options.seed, target=target)
    async with watching(client, url) as most:
        raged = await rage(client, url, make, options.seconds, options.concurrency)
    result = Result(options, raged, most=most)
    if not any(failure.signature == DEAD for failure in result.storm.failures):
        await _clear(client, url)
        result.left = await leftovers(client, target, before[OF_VECTORS])
        result.preemptions = (await metrics(client, url))[PREEMPTIONS] - before[PREEMPTIONS]
    await _shrink_all(client, target, place, result)
    return result


async def replay(
    client: Client, place: Place, options: Options, numbers: Sequence[int]
) -> set[str]:
    """Send some requests of a storm at once; return the signatures of what went wrong."""
    target = await _prepared(client, await place(), options)
    return await together(client, target.url, [shot(options.seed, at, target) for at in numbers])


async def _prepared(client: Client, url: str, options: Options) -> Target:
    """Return a server, once it has the vectors that requests steer along."""
    target = await Target.of(client, url, options.most_tokens, options.patience)
    await _upload(client, target, url)
    return target


async def _upload(client: Client, target: Target, url: str) -> None:
    for upload in first_vectors(target):
        await fire(client, url, upload)


async def _clear(client: Client, url: str) -> None:
    for deletion in last_deletions():
        await fire(client, url, deletion)


async def _living(client: Client, place: Place) -> str:
    """Return the URL of a server that lives, once one that died has ended.

    Raises:
        WrongAnswerError: it neither lives nor ends, or no other one is started.

    """
    deadline = Deadline(_GONE_SECONDS)
    while not await is_alive(client, url := await place()):
        if not deadline.left:
            raise WrongAnswerError(DEAD)
        await asyncio.sleep(_BETWEEN_SECONDS)
    return url


async def _shrink_all(client: Client, target: Target, place: Place, result: Result) -> None:
    """Shrink the first failure of each kind, each in an equal part of the time."""
    deadline = Deadline(result.options.shrink_seconds)
    kinds = {failure.signature: failure for failure in reversed(result.storm.failures)}
    for at, failure in enumerate(kinds.values()):

        async def fails(shots: Sequence[Shot], signature: str = failure.signature) -> bool:
            url = await _living(client, place)
            await _upload(client, target, url)
            return signature in await together(client, url, shots)

        share = deadline.share(len(kinds) - at)
        with suppress(WrongAnswerError):  # then there is no server to ask
            result.shrunk[failure.signature] = await Shrinker(fails, share).shrink(failure)
