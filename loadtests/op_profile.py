"""Where the worker's torch operations go, case by case: `python -m loadtests.op_profile`.

Runs cases of the benchmark, and each one's baseline, under torch's profiler, which vLLM starts and
stops in its worker. The profiler slows what it watches, most where operations are small: what an
operation adds is to be read beside what the others take, not as throughput. Writes ops.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.cases.chats import make_vectors
from loadtests.cases.throughput import (
    CONTROL,
    PLAIN,
    RESIDUAL_ALL,
    RESIDUAL_ONE,
    RESIDUAL_WIDE,
    Case,
    throughput_cases,
)
from loadtests.measure.client import Client, Request, RequestError, connected
from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.servers import SCRATCH, SENSEFIELD, Server, running
from loadtests.report import pages
from service.embedded_model import embedded_model_dir

TRACES = SCRATCH / "traces"
FLAGS = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "256")
PROFILER = json.dumps(
    {
        "profiler": "torch",
        "torch_profiler_dir": str(TRACES),
        "torch_profiler_with_stack": False,
        "ignore_frontend": True,
    }
)
CASES = (
    *("top20", "top1000", "vocabulary", CONTROL, RESIDUAL_ONE, RESIDUAL_ALL),
    *RESIDUAL_WIDE.values(),
)
SHOWN = 8
"""Operations of a case."""


def self_times(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return the microseconds of each operation without those that it calls, over all threads.

    Args:
        events: of a Chrome trace; an operation is complete ("X") and of category ``cpu_op``.

    """
    operations = [each for each in events if each.get("ph") == "X" and each["cat"] == "cpu_op"]
    # Of two that begin at once the longer one calls the other.
    operations.sort(key=lambda each: (each["tid"], each["ts"], -each["dur"]))
    times: Counter[str] = Counter()
    calling: list[tuple[Any, float, str]] = []
    for each in operations:
        begin, end = each["ts"], each["ts"] + each["dur"]
        while calling and (calling[-1][0] != each["tid"] or calling[-1][1] <= begin):
            calling.pop()
        if calling:
            times[calling[-1][2]] -= each["dur"]
        times[each["name"]] += each["dur"]
        calling.append((each["tid"], end, each["name"]))
    return times


def per_token(times: Mapping[str, float], tokens: int) -> dict[str, float]:
    """Return microseconds a token."""
    return {name: time / tokens for name, time in times.items()}


def added(feature: Mapping[str, float], baseline: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return what each operation takes more than in the baseline, the most first."""
    names = feature.keys() | baseline.keys()
    more = {name: feature.get(name, 0.0) - baseline.get(name, 0.0) for name in names}
    return sorted(more.items(), key=lambda each: -each[1])


async def profile(client: Client, server: Server, requests: Sequence[Request]) -> dict[str, float]:
    """Return the microseconds a token of each operation while requests are answered."""
    shutil.rmtree(TRACES, ignore_errors=True)
    await _post(client, f"{server.url}/start_profile")
    run = await client.run(server.url, requests)
    await _post(client, f"{server.url}/stop_profile")
    (trace,) = TRACES.glob("**/*.json.gz")
    with gzip.open(trace) as file:
        return per_token(self_times(json.load(file)["traceEvents"]), run.tokens)


async def _post(client: Client, url: str) -> None:
    async with client.session.post(url, json={}) as answer:
        if not answer.ok:
            raise RequestError(f"HTTP {answer.status}: {await answer.text()}")


def section(case: Case, feature: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """Return the part of the page of one case."""
    rows = [
        (f"`{name}`", f"{feature.get(name, 0.0):.1f}", f"{more:+.1f}")
        for name, more in added(feature, baseline)[:SHOWN]
    ]
    whole, without = sum(feature.values()), sum(baseline.values())
    rows.append(("all operations", f"{whole:.1f}", f"{whole - without:+.1f}"))
    return f"## {case.title}\n\n" + pages.markdown_table(
        ("operation", "us a token", "more than without"), rows
    )


async def _run(names: Sequence[str], tokens: int, out: Path) -> None:
    cases = [case for case in throughput_cases(tokens) if case.name in names]
    flags = (*FLAGS, "--profiler-config", PROFILER)
    sections = []
    async with (
        running((SENSEFIELD,), str(embedded_model_dir()), flags) as servers,
        connected() as client,
    ):
        server = servers[SENSEFIELD]
        await make_vectors(client, server.url)
        for case in cases:
            for load in (case.ours.feature, case.ours.baseline):
                await client.run(server.url, load.requests)
            feature = await profile(client, server, case.ours.feature.requests)
            baseline = await profile(client, server, case.ours.baseline.requests)
            sections.append(section(case, feature, baseline))
            print(f"\n{sections[-1]}", flush=True)
    machine = pages.machine_line(describe_machine(), embedded_model_dir().name)
    command = describe_command(sys.argv[1:], "loadtests.op_profile")
    head = (
        f"# Operations of the worker\n\n{machine}.\n\n"
        "Self time of torch's operations in the worker, over all of its threads, by torch's "
        "profiler, which slows small ones most; beside the same chats without the feature.\n\n"
    )
    pages.write(out, "ops.md", head + "\n".join(sections) + f"\n`{command}`\n")


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.op_profile", description=__doc__)
    add = parser.add_argument
    known = [case.name for case in throughput_cases(1) if case.name != PLAIN]
    add("--cases", nargs="+", choices=known, default=CASES, help="default: %(default)s")
    add("--tokens", type=int, default=32, help="of each request; %(default)s")
    add("--out", type=Path, default=Path("docs/bench/profile"), help="folder; %(default)s")
    options = parser.parse_args()
    asyncio.run(_run(options.cases, options.tokens, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
