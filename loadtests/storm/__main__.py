"""The command; see the package."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from loadtests.measure.client import Client, connected
from loadtests.measure.servers import SENSEFIELD, Server, running
from loadtests.measure.signals import cancel_on_signals
from loadtests.storm.run import Options, Place, replay, storm
from service.embedded_model import embedded_model_dir

FLAGS = (
    *("--enforce-eager", "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "16"),
    *("--block-size", "32", "--num-gpu-blocks-override", "32"),
    *("--max-num-batched-tokens", "128"),
)
"""Fewer blocks than the requests need, so some are preempted; prompts come in chunks."""


class _Servers:
    """Starts a server where none lives."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._server: Server | None = None

    async def place(self) -> str:
        if self._server is None or self._server.has_ended():
            await self._stack.aclose()
            model = str(embedded_model_dir())
            servers = await self._stack.enter_async_context(
                running([SENSEFIELD], model, FLAGS, settle=False)
            )
            self._server = servers[SENSEFIELD]
        return self._server.url


async def _run(arguments: argparse.Namespace) -> int:
    cancel_on_signals()
    options = Options(arguments.seconds, arguments.seed, arguments.concurrency)
    async with connected() as client, AsyncExitStack() as stack:
        place: Place = _Servers(stack).place
        if arguments.url:

            async def given() -> str:
                url: str = arguments.url
                return url

            place = given
        if arguments.only:
            return await _replay(client, place, options, arguments.only)
        result = await storm(client, place, options)
    print(result.report())
    return 0 if result.passed else 1


async def _replay(client: Client, place: Place, options: Options, numbers: list[int]) -> int:
    wrong = await replay(client, place, options, numbers)
    print("\n".join(sorted(wrong)) or "all answered")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a storm; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.storm", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=600, help="%(default)s")
    add("--seed", type=int, default=1, help="makes the requests; %(default)s")
    add("--concurrency", type=int, default=24, help="requests at once; %(default)s")
    add("--url", help="of a server; one with little room is started")
    add("--only", type=int, nargs="+", metavar="NUMBER", help="requests to send once, together")
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("storm: interrupted; its server is stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
