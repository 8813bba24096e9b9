"""A mixed load for half an hour: `python -m loadtests.soak`, after the faults in `make soak`.

No resource may grow, and no answer may be wrong: every twentieth request's greedy answer is
compared with its answer alone. Writes soak.md; exits with 1 if a resource grew or an answer was
wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.cases.chats import TOPICS, chat, make_vectors, with_control, with_residual
from loadtests.cases.exchanges import exchanges
from loadtests.measure.client import FAILURES, Client, Request, connected
from loadtests.measure.machine import describe_machine
from loadtests.measure.memory import WARM_SHAPES, idle_memory, leave, short_request
from loadtests.measure.processes import open_files, resident_bytes
from loadtests.measure.servers import SENSEFIELD, Server, running
from loadtests.report import pages
from loadtests.report.pages import machine_line, markdown_table
from service.embedded_model import embedded_model_dir

CONCURRENCY = 8
CHECK_EVERY, LEAVE_EVERY, EXCHANGE_EVERY = 20, 9, 5
CHECKED_TOKENS = 24
LOOKS = 40
"""Number of samples of memory, evenly over the run."""
MOST_GROWTH = 0.02
"""Largest relative growth of memory, from the second quarter of the samples to the last."""
FLAGS = (
    *("--enforce-eager", "--dtype", "float32", "--max-model-len", "1024"),
    *("--max-num-seqs", "16", "--max-num-batched-tokens", "512"),
)
"""float32, because a batch rounds bfloat16 otherwise than a request alone."""


@dataclass(frozen=True)
class Look:
    """A sample of the server's resources."""

    minute: float
    resident: dict[str, int]
    files: int
    series: int


@dataclass
class Soak:
    """The result of a soak."""

    expected: dict[int, str]
    """Greedy answers, alone, by the number of the checked request."""
    looks: list[Look] = field(default_factory=list)
    answered: int = 0
    left: int = 0
    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def grown(self) -> list[str]:
        """Return what is larger in the last quarter than in the second, by its medians."""
        size = len(self.looks) // 4
        early, late = self.looks[size : 2 * size], self.looks[-size:]
        found = []
        for name in early[-1].resident:
            before, after = (median(look.resident[name] for look in part) for part in (early, late))
            if after > before * (1 + MOST_GROWTH):
                found.append(f"{name}: {before / 2**20:.0f} to {after / 2**20:.0f} MiB")
        for what in ("files", "series"):
            before, after = (median(getattr(look, what) for look in part) for part in (early, late))
            if after > before:
                found.append(f"{what}: {before:.0f} to {after:.0f}")
        return found


def checked_requests() -> list[Request]:
    """Return the requests whose answers are compared: plain, controlled and steered ones."""
    return [
        *(chat(topic, CHECKED_TOKENS) for topic in TOPICS[:8]),
        *with_control(CHECKED_TOKENS, 8),
        *with_residual(CHECKED_TOKENS, 8),
    ]


async def soak(client: Client, server: Server, minutes: float) -> Soak:
    """Run the load; return its result."""
    await make_vectors(client, server.url)
    for length in range(WARM_SHAPES):
        await client.run(server.url, [chat(f"{length}{' word' * length}", 2)])
    checked = checked_requests()
    texts = [await _text(client, server, request) for request in checked]
    result = Soak(dict(enumerate(texts)))
    started = time.monotonic()
    deadline = started + minutes * 60
    numbers = itertools.count()
    load = asyncio.gather(
        *(_send(client, server, result, checked, numbers, deadline) for _ in range(CONCURRENCY))
    )
    for at in range(LOOKS):
        await asyncio.sleep(max(0.0, started + (at + 1) * minutes * 60 / LOOKS - time.monotonic()))
        result.looks.append(await _look(client, server, (time.monotonic() - started) / 60))
    await load
    await idle_memory(client, server)
    return result


async def _send(
    client: Client,
    server: Server,
    result: Soak,
    checked: Sequence[Request],
    numbers: Iterator[int],
    deadline: float,
) -> None:
    """Send requests one after another; each one's number chooses its kind."""
    while time.monotonic() < deadline:
        number = next(numbers)
        try:
            if number % CHECK_EVERY == 0:
                at = number // CHECK_EVERY % len(checked)
                text = await _text(client, server, checked[at])
                result.checked += 1
                if text != result.expected[at]:
                    result.wrong.append(f"{text!r} instead of {result.expected[at]!r}")
            elif number % EXCHANGE_EVERY == 1:
                for exchange in exchanges(number // EXCHANGE_EVERY):
                    await exchange.run(client, server.url)
            elif number % LEAVE_EVERY == 0:
                await leave(client, server, short_request(number))
                result.left += 1
            else:
                await client.run(server.url, [short_request(number)])
            result.answered += 1
        except FAILURES as failure:
            result.failures.append(repr(failure)[:200])


async def _text(client: Client, server: Server, request: Request) -> str:
    payload = {**request.payload, "stream": False, "stream_options": None}
    async with client.session.post(server.url + request.path, json=payload) as answer:
        answer.raise_for_status()
        text: str = (await answer.json())["choices"][0]["message"]["content"]
        return text


async def _look(client: Client, server: Server, minute: float) -> Look:
    async with client.session.get(f"{server.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    series = sum(not line.startswith("#") for line in lines)
    return Look(minute, resident_bytes(server.group), open_files(server.group), series)


def page(result: Soak, minutes: float, machine: dict[str, Any]) -> str:
    """Return the report."""
    names = list(result.looks[0].resident)
    shown = result.looks[:: max(1, len(result.looks) // 10)]
    rows = [
        (
            f"{look.minute:.1f}",
            *(f"{look.resident.get(name, 0) / 2**20:.0f}" for name in names),
            f"{look.files}",
            f"{look.series}",
        )
        for look in shown
    ]
    table = markdown_table(("minute", *names, "open files", "metric series"), rows)
    findings = [
        f"{result.answered} requests of all kinds, {CONCURRENCY} at a time, {result.left} of them "
        f"left by their clients; {len(result.failures)} failures.",
        f"{result.checked} answers compared with the same request alone, greedy, float32: "
        f"{len(result.wrong)} differ.",
        f"Grown by more than {MOST_GROWTH:.0%} (memory) or at all (files, series), from the second "
        f"quarter to the last: {'; '.join(result.grown()) or 'nothing'}.",
    ]
    listed = "".join(f"- {line}\n" for line in (*findings, *result.wrong[:5], *result.failures[:5]))
    return (
        f"# {minutes:g} minutes of mixed load\n\n{machine_line(machine, 'the embedded model')}. "
        f"Resident memory, MiB.\n\n{table}\n{listed}\n"
        f"`python -m loadtests.soak --minutes {minutes:g}`\n"
    )


async def _run(options: argparse.Namespace) -> int:
    async with (
        running([SENSEFIELD], str(embedded_model_dir()), FLAGS) as servers,
        connected() as client,
    ):
        result = await soak(client, servers[SENSEFIELD], options.minutes)
    text = page(result, options.minutes, describe_machine())
    print(f"\n{text}")
    pages.write(options.out, "soak.md", text)
    return 1 if result.wrong or result.failures or result.grown() else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of load; %(default)s")
    parser.add_argument("--out", type=Path, default=Path("docs/faults"), help="%(default)s")
    return asyncio.run(_run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
