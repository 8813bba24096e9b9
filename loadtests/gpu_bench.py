"""Measures Sensefield on a GPU within a few minutes: `python -m loadtests.gpu_bench`.

The kernels alone, then model after model, smallest first: Sensefield and stock vLLM side by side on
the same GPU. Nothing runs past the deadline: what it cuts off, the table says. Writes gpu.json and
gpu.md, and prints the table last.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.cases.chats import make_vectors
from loadtests.cases.gpu_models import Model, default_models, models_in
from loadtests.cases.sweeps import sweep_cases
from loadtests.cases.throughput import CONTROL, PLAIN, RESIDUAL_ALL, RESIDUAL_ONE, throughput_cases
from loadtests.measure.client import FAILURES, Client, connected
from loadtests.measure.deadline import Deadline
from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.results import Result
from loadtests.measure.rounds import measure
from loadtests.measure.servers import SENSEFIELD, STOCK, STOP_SECONDS, Server, ServerError, running
from loadtests.measure.signals import cancel_on_signals
from loadtests.measure.stall import STALL, TITLE, measure_stall
from loadtests.report import pages
from loadtests.report.gpu_page import Outcome, gpu_json, gpu_markdown
from service.errors import SensefieldError

ORDER = (
    *(PLAIN, STALL, "top1000-both", CONTROL, RESIDUAL_ALL, "vocabulary", "control-256", "top20"),
    *("top1000", RESIDUAL_ONE, "residual-64", "residual-256", "control-8", "control-1"),
    "neighbour",
)
"""In order of importance: the deadline cuts off the last ones."""
ENGINE_FLAGS = (
    "--max-model-len 1024 --max-num-seqs 256 --gpu-memory-utilization 0.4 "
    "--kv-cache-memory-bytes 8G --cudagraph-capture-sizes 1 2 4 8 16 32 64 128 256"
)
"""Two servers start on one GPU at once: a fixed KV cache, so that neither measures the other."""
_KERNELS_SECONDS = 60


@dataclass(frozen=True)
class Step:
    """The measurement of a row of the table."""

    title: str
    take: Callable[[Client, Mapping[str, Server]], Awaitable[Result]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return asyncio.run(_run(options, describe_command(given, "loadtests.gpu_bench")))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("gpu_bench: interrupted; the servers are stopped", file=sys.stderr)
        return 130
    except (SensefieldError, ValueError) as error:
        print(f"gpu_bench: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.gpu_bench", description=__doc__)
    add = parser.add_argument
    add(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="folder of models' folders; without it the "
        "embedded model, and shapes of Qwen3 from the hub. Without weights they are made up",
    )
    add("--minutes", type=float, default=8, help="in all, servers' ends included; %(default)s")
    add("--cases", nargs="+", choices=ORDER, default=ORDER, metavar="CASE", help="of %(choices)s")
    add("--rounds", type=int, default=3, help="of each case; %(default)s")
    add("--tokens", type=int, default=64, help="of a request among eight; %(default)s")
    add("--engine-flags", default=ENGINE_FLAGS, help="of both servers; '%(default)s'")
    add("--out", type=Path, default=Path("docs/bench/gpu"), help="folder; %(default)s")
    return parser


async def _run(options: argparse.Namespace, command: str) -> int:
    cancel_on_signals()
    models = models_in(options.models) if options.models else default_models()
    deadline = Deadline(60 * options.minutes - STOP_SECONDS)
    kernels = measure_kernels(min(_KERNELS_SECONDS, deadline.share(1 + len(models)).left))
    steps = plan(options.cases, options.tokens, options.rounds)
    outcomes = []
    for at, model in enumerate(models):
        flags = (*model.flags, *shlex.split(options.engine_flags))
        outcomes.append(await _measure(model, flags, steps, deadline.share(len(models) - at)))
    machine = describe_machine()
    settings = {
        "command": command,
        "engine_flags": options.engine_flags,
        "rounds": options.rounds,
        "tokens": options.tokens,
        "minutes": options.minutes,
    }
    pages.write(options.out, "gpu.json", gpu_json(outcomes, kernels, settings, machine))
    page = gpu_markdown(outcomes, kernels, settings, machine)
    pages.write(options.out, "gpu.md", page)
    print(f"\n{page}")
    return 0 if all(outcome.results for outcome in outcomes) else 1


def plan(names: Sequence[str], tokens: int, rounds: int) -> dict[str, Step]:
    """Return the measurements to take, the most important first."""
    cases = {case.name: case for case in (*throughput_cases(tokens), *sweep_cases(tokens))}

    def step(name: str) -> Step:
        if name == STALL:
            return Step(TITLE, measure_stall)
        case = cases[name]
        return Step(case.title, lambda client, servers: measure(client, servers, case, rounds))

    return {name: step(name) for name in ORDER if name in names}


async def _measure(
    model: Model, flags: Sequence[str], steps: Mapping[str, Step], deadline: Deadline
) -> Outcome:
    """Serve a model on both servers and measure all that the deadline allows."""
    print(f"{model.title}: {deadline.left:.0f} s", flush=True)
    outcome = Outcome(model, {name: step.title for name, step in steps.items()})
    try:
        async with (
            asyncio.timeout(deadline.left),
            running((SENSEFIELD, STOCK), model.path, flags, settle=False) as servers,
            connected() as client,
        ):
            await make_vectors(client, servers[SENSEFIELD].url)
            await take_steps(outcome, steps, client, servers)
    except TimeoutError:
        outcome.reason = "out of time"
    except (*FAILURES, ServerError) as error:
        outcome.reason = _reason(error)
    return outcome


async def take_steps(
    outcome: Outcome, steps: Mapping[str, Step], client: Client, servers: Mapping[str, Server]
) -> None:
    """Measure one after the other; one that fails is no reason to skip the others."""
    for name, step in steps.items():
        try:
            outcome.results[name] = await step.take(client, servers)
        except (*FAILURES, ServerError) as error:
            outcome.failures[name] = _reason(error)


def _reason(error: Exception) -> str:
    """Print all of an error; return what fits into a cell of a table."""
    print(f"failed: {error!r}", file=sys.stderr, flush=True)
    lines = str(error).splitlines() or [type(error).__name__]
    return f"failed: {lines[0][:80]}".replace("|", "/")


def measure_kernels(seconds: float) -> str:
    """Return what the kernels alone take, as text, or why that is not known.

    In a process of its own, so that the servers find the GPU's memory free.
    """
    command = [sys.executable, "-m", "loadtests.kernels"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"skipped: not done within {seconds:.0f} s"
    if done.returncode:
        return f"skipped: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
