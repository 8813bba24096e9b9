"""The cost of a lens for the chats beside it: `python -m loadtests.lens`.

Eight plain chats with one request beside them that reads every layer at every position of its
text, over the same chats alone, on one server in turns; and the chats of a server with an idle
lens, over stock vLLM's without one. Writes lens.json and lens.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.cases.chats import TOPICS, plain
from loadtests.cases.throughput import CONCURRENCY, PLAIN, throughput_cases
from loadtests.measure.client import Client, RequestError, connected
from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.results import Result, at_least
from loadtests.measure.rounds import Round, measure, ratios
from loadtests.measure.servers import MODEL_NAME, SENSEFIELD, STOCK, Server, running
from loadtests.report import pages
from service.embedded_model import embedded_model_dir

PROMPT = "The history of the city begins with a small group of people who"
FLAGS = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "64")


async def measure_lens(client: Client, server: Server, tokens: int, rounds: int) -> Result:
    """Run the chats beside a lens and alone, in turns."""
    load = plain(tokens, CONCURRENCY)
    await client.run(server.url, plain(max(2, tokens // 8), CONCURRENCY))
    seconds, cells = [], 0
    done = []
    for number in range(-1, rounds):
        await server.settled()
        reading = asyncio.create_task(_read(client, server, number))
        feature = await client.run(server.url, load)
        took, cells = await reading
        await server.settled()
        found = Round(feature, await client.run(server.url, load))
        if number < 0:
            continue  # the first shapes of a server's life are compiled in it
        done.append(found)
        seconds.append(took)
        print(f"lens, round {number + 1}: {found}, read in {took:.2f} s", flush=True)
    return Result(
        "lens",
        f"{CONCURRENCY} chats with a lens of {cells} cells beside them",
        at_least(0.90),
        ratios(done),
        raw={"rounds": [each.describe() for each in done], "lens_seconds": seconds},
    )


async def _read(client: Client, server: Server, number: int) -> tuple[float, int]:
    """Read a text that no cache holds at all layers; return the seconds and the cells."""
    body = {"model": MODEL_NAME, "prompt": f"{TOPICS[number]}: {PROMPT}", "encoding": "base64"}
    started = time.perf_counter()
    async with client.session.post(f"{server.url}/v1/lens", json=body) as answer:
        read = await answer.json()
        if not answer.ok:
            raise RequestError(f"HTTP {answer.status}: {read}")
    return time.perf_counter() - started, len(read["layers"]) * len(read["positions"])


def lens_markdown(
    results: list[Result], settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> str:
    """Return the page."""
    seconds = results[0].raw["lens_seconds"]
    return (
        f"{pages.machine_line(machine, embedded_model_dir().name)}.\n\n"
        f"Tokens a second of {CONCURRENCY} plain chats of {settings['tokens']} tokens: with one "
        f"`/v1/lens` of every layer and position sent beside them over without, on the same "
        f"server; and of a server with an idle lens over stock vLLM, whose model has no "
        f"hooks. In turns, median of {settings['rounds']} rounds. The lens took "
        f"{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}).\n\n"
        f"{pages.results_table(results)}\n"
        f"`{settings['command']}`\n"
    )


async def _run(tokens: int, rounds: int, out: Path) -> None:
    model = str(embedded_model_dir())
    idle = next(case for case in throughput_cases(tokens) if case.name == PLAIN)
    async with running((SENSEFIELD, STOCK), model, FLAGS) as servers, connected() as client:
        results = [
            await measure_lens(client, servers[SENSEFIELD], tokens, rounds),
            await measure(client, servers, idle, rounds),
        ]
    machine = describe_machine()
    command = describe_command(sys.argv[1:], "loadtests.lens")
    settings = {"tokens": tokens, "rounds": rounds, "command": command}
    text = lens_markdown(results, settings, machine)
    print(f"\n{text}")
    pages.write(out, "lens.md", text)
    pages.write(out, "lens.json", pages.benchmark_json(results, settings, machine))


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.lens", description=__doc__)
    add = parser.add_argument
    add("--tokens", type=int, default=96, help="of each chat; %(default)s")
    add("--rounds", type=int, default=5, help="of each case; %(default)s")
    add("--out", type=Path, default=Path("docs/bench/lens"), help="folder; %(default)s")
    options = parser.parse_args()
    asyncio.run(_run(options.tokens, options.rounds, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
