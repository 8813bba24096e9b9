"""Load tests of a server, and its capacity: `python -m loadtests.load.run`.

Locust runs once for each group of requests (plain, control, distribution), against the server that
--url names or one of the embedded model that is started for it. Writes loadtest.json, loadtest.md
and loadtest.png; Locust's own HTML and JSON reports go to .bench/loadtest. The exit status is 1 if
a group missed an objective.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from loadtests.load.capacity import steps
from loadtests.load.kinds import GROUPS
from loadtests.load.objectives import Objectives, Sample
from loadtests.load.options import add_load_options
from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.servers import ROOT, SCRATCH, SENSEFIELD, ServerError, running
from loadtests.report import pages
from loadtests.report.capacity_chart import draw_capacity
from loadtests.report.capacity_page import capacity_markdown
from service.embedded_model import embedded_model_dir
from service.errors import SensefieldError

ENGINE_FLAGS = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "64")
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load tests; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return asyncio.run(_run(options, describe_command(given, "loadtests.load.run")))
    except (ServerError, SensefieldError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.load.run", description=__doc__)
    add = parser.add_argument
    add("--url", help="of a running Sensefield; without it one is started")
    add("--dtype", default="auto", help="of the server that is started; %(default)s")
    add("--groups", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=f"of {GROUPS}")
    add_load_options(parser)
    add("--out", type=Path, default=Path("docs/loadtest"), help="folder; %(default)s")
    return parser


async def _run(options: argparse.Namespace, command: str) -> int:
    objectives = Objectives(options.ttft_ms / 1000, options.itl_ms / 1000, options.errors)
    async with _server(options.url, options.dtype) as url:
        codes = {group: _locust(group, url, options) for group in options.groups}
    groups = {group: steps(_samples(group), objectives) for group in options.groups}
    machine = describe_machine()
    settings = {
        "command": command,
        "model": "a server elsewhere" if options.url else embedded_model_dir().name,
        "shape": options.shape,
        "seconds": options.seconds,
        "tokens": options.tokens,
        "objectives": asdict(objectives),
    }
    page = capacity_markdown(groups, objectives, settings, machine)
    measured = {group: [asdict(step) for step in found] for group, found in groups.items()}
    content = {"machine": machine, "settings": settings, "groups": measured}
    pages.write(options.out, "loadtest.json", json.dumps(content, indent=1) + "\n")
    pages.write(options.out, "loadtest.md", page)
    caption = pages.machine_line(machine, settings["model"])
    draw_capacity(groups, objectives, caption, options.out / "loadtest.png")
    print(f"\n{page}")
    return max(codes.values())


@asynccontextmanager
async def _server(url: str | None, dtype: str) -> AsyncIterator[str]:
    """Yield the address of the server under test."""
    if url:
        yield url.rstrip("/")
        return
    flags = (*ENGINE_FLAGS, "--dtype", dtype)
    async with running((SENSEFIELD,), str(embedded_model_dir()), flags) as servers:
        yield servers[SENSEFIELD].url


def _locust(group: str, url: str, options: argparse.Namespace) -> int:
    """Run Locust with one group's requests; return its exit status."""
    folder = _folder()
    _samples_file(group).unlink(missing_ok=True)
    given = {
        "--host": url,
        "--tags": group,
        "--shape": options.shape,
        "--peak": options.peak,
        "--seconds": options.seconds / len(options.groups),
        "--tokens": options.tokens,
        "--ttft-ms": options.ttft_ms,
        "--itl-ms": options.itl_ms,
        "--errors": options.errors,
        "--samples": _samples_file(group),
        "--html": folder / f"{group}.html",
        "--json-file": folder / group,
    }
    flags = [str(part) for pair in given.items() for part in pair]
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless"]
    print(f"{group}:", flush=True)
    quiet = ("--only-summary", "--loglevel", "WARNING")
    return subprocess.run([*command, *quiet, *flags], cwd=ROOT, check=False).returncode


def _samples(group: str) -> list[Sample]:
    file = _samples_file(group)
    return [Sample(**sample) for sample in json.loads(file.read_text())] if file.exists() else []


def _samples_file(group: str) -> Path:
    return _folder() / f"{group}.samples.json"


def _folder() -> Path:
    folder = SCRATCH / "loadtest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
