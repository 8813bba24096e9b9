"""Other people's instruments on both servers in turns: `python -m loadtests.foreign`.

`vllm bench serve`, and guidellm where --guidellm names its command (in an environment of its own),
measure stock vLLM, Sensefield, and Sensefield with the top 1000 of both stages. Our own client
measures the same three beside them. Writes foreign.json and foreign.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.cases.chats import plain, with_distribution
from loadtests.cases.throughput import BOTH, CONCURRENCY
from loadtests.measure.client import connected
from loadtests.measure.machine import describe_machine
from loadtests.measure.servers import MODEL_NAME, SENSEFIELD, STOCK, Server, running
from loadtests.report import pages
from service.embedded_model import embedded_model_dir

ENGINE_FLAGS = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "64")
TOKENS, REQUESTS, PROMPT_TOKENS = 48, 24, 32
DISTRIBUTION = {"distribution": {"top_k": 1000, "stages": BOTH}}
LOADS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain, stock vLLM": (STOCK, {}),
    "plain, Sensefield": (SENSEFIELD, {}),
    "top-1000, both stages, Sensefield": (SENSEFIELD, DISTRIBUTION),
}
_VLLM_BENCH = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = argparse.ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
"""What `vllm bench serve` runs; the CPU package's command does not start without `vllm`'s name."""

Instrument = Callable[[Server, Mapping[str, Any], Path], float]


def vllm_bench(server: Server, extra: Mapping[str, Any], file: Path) -> float:
    """Return the output tokens per second that vLLM's own benchmark counts."""
    flags = {
        "--backend": "openai-chat",
        "--endpoint": "/v1/chat/completions",
        "--base-url": server.url,
        "--model": embedded_model_dir(),
        "--served-model-name": MODEL_NAME,
        "--dataset-name": "random",
        "--random-input-len": PROMPT_TOKENS,
        "--random-output-len": TOKENS,
        "--num-prompts": REQUESTS,
        "--max-concurrency": CONCURRENCY,
        "--extra-body": json.dumps(extra),
        "--result-filename": file,
    }
    command = [sys.executable, "-c", _VLLM_BENCH, "--save-result", "--ignore-eos", "--disable-tqdm"]
    _call([*command, *(str(part) for pair in flags.items() for part in pair)])
    found = json.loads(file.read_text())
    if found["completed"] != REQUESTS:
        raise RuntimeError(f"vllm bench serve completed {found['completed']} of {REQUESTS}")
    return float(found["output_throughput"])


def guidellm(command: str) -> Instrument:
    """Return guidellm as an instrument."""

    def measure(server: Server, extra: Mapping[str, Any], file: Path) -> float:
        spec = {
            "backend": {
                "kind": "openai_http",
                "target": server.url,
                "model": MODEL_NAME,
                "request_format": "/v1/chat/completions",
                "extras": {"body": {"ignore_eos": True, **extra}},
            },
            "profile": {"kind": "concurrent", "streams": CONCURRENCY},
            "tokenizer": {"kind": "hf_auto", "model": str(embedded_model_dir())},
            "data": [
                {
                    "kind": "synthetic_text",
                    "prompt_tokens": PROMPT_TOKENS,
                    "output_tokens": TOKENS,
                }
            ],
            "constraints": [{"kind": "max_requests", "count": REQUESTS}],
            "outputs": [{"kind": "json", "path": str(file)}],
        }
        scenario = file.with_suffix(".scenario.json")
        scenario.write_text(json.dumps({"metadata": {"name": "foreign"}, "spec": spec}))
        _call([command, "run", "-c", str(scenario), "--disable-console"])
        metrics = json.loads(file.read_text())["benchmarks"][0]["metrics"]
        return float(metrics["output_tokens_per_second"]["successful"]["mean"])

    return measure


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")


async def measure_all(
    servers: Mapping[str, Server], instruments: Mapping[str, Instrument], rounds: int, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Return the rates of each load under each instrument, measured in turns after a warm-up."""
    rates: dict[str, dict[str, list[float]]] = {
        name: {load: [] for load in LOADS} for name in ("ours", *instruments)
    }
    async with connected() as client:
        for number in range(rounds + 1):
            for load, (name, extra) in LOADS.items():
                for server in servers.values():
                    await server.settled()
                requests = (
                    with_distribution(TOKENS, *[1000] * CONCURRENCY, stages=BOTH)
                    if extra
                    else plain(TOKENS, CONCURRENCY)
                )
                found = {"ours": (await client.run(servers[name].url, requests)).rate}
                for instrument, measure in instruments.items():
                    await servers[name].settled()
                    file = (folder / f"{instrument.replace(' ', '-')}.json").absolute()
                    file.unlink(missing_ok=True)
                    found[instrument] = await asyncio.to_thread(measure, servers[name], extra, file)
                if number:  # the first round warms up
                    for instrument, rate in found.items():
                        rates[instrument][load].append(rate)
                print(f"round {number}, {load}: {found}", flush=True)
    return rates


def foreign_markdown(
    rates: Mapping[str, Mapping[str, Sequence[float]]], rounds: int, machine: Mapping[str, Any]
) -> str:
    """Return the page: medians, and whether the instruments order the loads alike."""
    rows, orders = [], set()
    for instrument, loads in rates.items():
        middle = {load: median(values) for load, values in loads.items()}
        orders.add(tuple(sorted(middle, key=middle.__getitem__)))
        stock, ours, both = middle.values()
        rows.append(
            (
                instrument,
                *(f"{value:.1f}" for value in middle.values()),
                f"{ours / stock:.3f}",
                f"{both / ours:.3f}",
            )
        )
    header = ("instrument, tokens/s", *LOADS, "plain, over stock", "top-1000 over plain")
    return (
        f"{pages.machine_line(machine, embedded_model_dir().name)}.\n\n"
        f"Output tokens per second, {CONCURRENCY} streams at once of {TOKENS} tokens each, medians "
        f"of {rounds} rounds in turns after one to warm up. Ours sends {CONCURRENCY} requests and "
        f"waits for the last; the others send {REQUESTS}, {CONCURRENCY} at a time, and count the "
        f"time at their start and end in which fewer run.\n\n"
        f"{pages.markdown_table(header, rows)}\n"
        f"They order the three {'alike' if len(orders) == 1 else 'differently'}.\n\n"
        f"`python -m loadtests.foreign --guidellm COMMAND`\n"
    )


async def _run(options: argparse.Namespace) -> None:
    instruments: dict[str, Instrument] = {"vllm bench serve": vllm_bench}
    if options.guidellm:
        instruments["guidellm"] = guidellm(options.guidellm)
    model = str(embedded_model_dir())
    async with running((SENSEFIELD, STOCK), model, ENGINE_FLAGS) as servers:
        options.scratch.mkdir(parents=True, exist_ok=True)
        rates = await measure_all(servers, instruments, options.rounds, options.scratch)
    machine = describe_machine()
    page = foreign_markdown(rates, options.rounds, machine)
    content = {"machine": machine, "rates": rates}
    pages.write(options.out, "foreign.json", json.dumps(content, indent=1) + "\n")
    pages.write(options.out, "foreign.md", page)
    print(f"\n{page}")


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.foreign", description=__doc__)
    add = parser.add_argument
    add("--guidellm", metavar="COMMAND", help="guidellm's command (0.8), if it shall measure too")
    add("--rounds", type=int, default=3, help="%(default)s")
    add("--out", type=Path, default=Path("docs/bench"), help="folder; %(default)s")
    add("--scratch", type=Path, default=Path(".bench/foreign"), help="folder; %(default)s")
    asyncio.run(_run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
