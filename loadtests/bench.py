"""Measures Sensefield against stock vLLM on this machine: `python -m loadtests.bench`.

Both servers serve the same model with the same engine flags and are up all the time; one is
asked at a time. Writes bench.json, bench.md and bench.png, of a sweep sweep.png too.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.cases.chats import make_vectors
from loadtests.cases.sweeps import SWEEPS, sweep_cases
from loadtests.cases.throughput import PLAIN, Case, throughput_cases
from loadtests.measure.client import FAILURES, connected
from loadtests.measure.encode import measure_encoding
from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.results import Result
from loadtests.measure.rounds import measure
from loadtests.measure.servers import SENSEFIELD, STOCK, ServerError, running
from loadtests.measure.signals import cancel_on_signals
from loadtests.measure.stall import STALL, measure_stall
from loadtests.report import pages
from loadtests.report.chart import draw
from loadtests.report.sweep_chart import draw_sweeps
from service.embedded_model import embedded_model_dir
from service.errors import SensefieldError

ENCODE = "encode"
CASES = (ENCODE, STALL, *(case.name for case in throughput_cases(1)))
"""The cases of a run by default."""
ALSO = (*SWEEPS, *(case.name for case in sweep_cases(1)))
"""The cases that are measured only if they are named."""
_EPILOG = (
    "On 2 cores a default run takes about 25 minutes, the sweep 'concurrency' about 15 and "
    "'configurations' about 6; the number of rounds and of tokens scale that."
)
ENGINE_FLAGS = "--enforce-eager --max-model-len 1024 --max-num-seqs 256"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return asyncio.run(_run(options, describe_command(given)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("bench: interrupted; the servers are stopped", file=sys.stderr)
        return 130
    except (*FAILURES, ServerError, SensefieldError) as error:
        print(f"bench: {error!r}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench", description=__doc__, epilog=_EPILOG
    )
    add = parser.add_argument
    names = f"all of {', '.join(CASES)}; by name only: {', '.join(ALSO)}"
    choices = (*CASES, *ALSO)
    add("--cases", nargs="+", choices=choices, default=CASES, metavar="CASE", help=names)
    add("--rounds", type=_positive, default=5, help="of each case; %(default)s")
    add("--tokens", type=_positive, default=96, help="of a request among eight; %(default)s")
    add("--model", help="folder or hub name; the embedded model")
    add("--engine-flags", default=ENGINE_FLAGS, help="of both servers; '%(default)s'")
    add("--out", type=Path, default=Path("docs/bench"), help="folder of the report; %(default)s")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


async def _run(options: argparse.Namespace, command: str) -> int:
    cancel_on_signals()
    model = options.model or str(embedded_model_dir())
    settings = {
        "command": command,
        "model": Path(model).name,
        "engine_flags": options.engine_flags,
        "rounds": options.rounds,
        "tokens": options.tokens,
    }
    started = time.monotonic()
    _report(options.out, await _cases(options, model), settings)
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


def chosen_cases(names: Sequence[str], tokens: int) -> list[Case]:
    """Return the cases that are named, one by one or as a sweep."""
    wanted = {one for name in names for one in SWEEPS.get(name, (name,))}
    every = [*throughput_cases(tokens), *sweep_cases(tokens)]
    return [case for case in every if case.name in wanted]


async def _cases(options: argparse.Namespace, model: str) -> list[Result]:
    """Measure the chosen cases, in an order that keeps them out of each other's way."""
    results = measure_encoding(options.rounds) if ENCODE in options.cases else []
    chosen = chosen_cases(options.cases, options.tokens)
    if not chosen and STALL not in options.cases:
        return results
    engine_flags = shlex.split(options.engine_flags)
    async with running((SENSEFIELD, STOCK), model, engine_flags) as servers, connected() as client:
        if any(case.names_vectors for case in chosen):
            await make_vectors(client, servers[SENSEFIELD].url)
        plain = [case for case in chosen if case.name == PLAIN]
        for case in plain:
            results.append(await measure(client, servers, case, options.rounds))
        # The first request with logprobs, which stock vLLM may not survive.
        if STALL in options.cases:
            results.append(await measure_stall(client, servers))
        for case in chosen[len(plain) :]:
            results.append(await measure(client, servers, case, options.rounds))
    return results


def _report(folder: Path, results: Sequence[Result], settings: dict[str, Any]) -> None:
    machine = describe_machine()
    text = pages.benchmark_markdown(results, settings, machine)
    print(f"\n{text}")
    pages.write(folder, "bench.md", text)
    pages.write(folder, "bench.json", pages.benchmark_json(results, settings, machine))
    caption = pages.machine_line(machine, settings["model"])
    draw(results, caption, folder / "bench.png")
    draw_sweeps(results, caption, folder / "sweep.png")


if __name__ == "__main__":
    sys.exit(main())
