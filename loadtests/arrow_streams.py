"""Arrow streams under load: `python -m loadtests.arrow_streams`.

Many whole-vocabulary streams from a server with too little KV cache, each token held against
the text's, with the server's memory; and eight readers beside one that takes 1 KB/s.
Writes streams.json and streams.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from loadtests.cases.chats import TOPICS, chat, with_distribution
from loadtests.measure.client import Client, Request, RequestError, connected
from loadtests.measure.machine import describe_machine
from loadtests.measure.memory import idle_memory, watching
from loadtests.measure.servers import SENSEFIELD, Server, running
from loadtests.report import pages
from service.embedded_model import embedded_model_dir

STREAMS, TOKENS, AT_ONCE = 100, 200, 16
ROUNDS, READERS, READER_TOKENS = 5, 8, 96
CROWDED = (
    *("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "16", "--block-size", "32"),
    *("--num-gpu-blocks-override", "64", "--max-num-batched-tokens", "64"),
    "--no-enable-prefix-caching",
)
ROOMY = ("--enforce-eager", "--max-model-len", "8192", "--max-num-seqs", "16")
_ARROW = {"accept": "application/vnd.apache.arrow.stream", "content-type": "application/json"}
_PREEMPTIONS = re.compile(r"^vllm:num_preemptions_total(?:{.*})? (\S+)$", re.MULTILINE)
_SLOW_BYTES = 1 << 10
_SLOW_TOKENS = 7900
"""More than are generated while the others are measured."""


async def measure_streams(client: Client, server: Server) -> dict[str, Any]:
    """Run all streams, so many at once; return what was checked, and memory."""
    await _check_streams(client, server, iter(range(4)))
    before = await idle_memory(client, server)
    numbers = iter(range(STREAMS))
    async with watching(server) as watch:
        counts = await asyncio.gather(
            *(_check_streams(client, server, numbers) for _ in range(AT_ONCE))
        )
    after = await idle_memory(client, server)
    return {
        "streams": STREAMS,
        "tokens_checked": sum(counts),
        "preemptions": await _preemptions(client, server),
        **{"before": before, "peak": watch.resident, "after": after},
    }


async def _check_streams(client: Client, server: Server, numbers: Iterator[int]) -> int:
    """Run streams one after another; return how many rows were the text's, all of them.

    Raises:
        RequestError: a row is missing, doubled or another token's.

    """
    checked = 0
    for number in numbers:
        topic = f"{TOPICS[number % len(TOPICS)]} {number}" + " and more" * (number % 40)
        wanted = {"top_k": "all", "dtype": "float16"}
        request = chat(topic, TOKENS, distribution=wanted, return_token_ids=True)
        async with _posted(client, server, request) as chunks:
            content = b"".join([chunk async for chunk in chunks])
        checked += await asyncio.to_thread(_check, content)
    return checked


def _check(content: bytes) -> int:
    positions: list[int] = []
    token_ids: list[int] = []
    answer: Any = None
    for batch, closing in pa.ipc.open_stream(content).iter_batches_with_custom_metadata():
        positions += batch["position"].to_pylist()
        token_ids += batch["token_id"].to_pylist()
        rows = batch["controlled_logprobs"]
        values = rows.flatten().to_numpy().reshape(batch.num_rows, rows.type.list_size)
        drawn = values[range(batch.num_rows), batch["token_id"].to_numpy()]
        if abs(drawn - batch["controlled_logprob"].to_numpy()).max(initial=0.0) > 0.05:
            raise RequestError("a row is not that of its token")
        answer = json.loads(closing["sensefield.response"]) if closing else answer
    if positions != list(range(TOKENS)) or token_ids != answer["choices"][0]["token_ids"]:
        raise RequestError(f"rows {positions} of tokens {token_ids} are not those of the text")
    return len(positions)


async def measure_slow_reader(client: Client, server: Server) -> dict[str, list[float]]:
    """Return the eight readers' rates in turns: alone, and beside a ninth, fast or slow."""
    load = with_distribution(READER_TOKENS, *[1000] * READERS)
    ninth = chat("turtle", _SLOW_TOKENS, distribution={"top_k": 1000})
    rates: dict[str, list[float]] = {"alone": [], "fast": [], "slow": []}
    await client.run(server.url, load)
    for _ in range(ROUNDS):
        for name, found in rates.items():
            if name == "alone":
                found.append((await client.run(server.url, load)).rate)
                continue
            async with _reading(client, server, ninth, slow=name == "slow"):
                found.append((await client.run(server.url, load)).rate)
            await idle_memory(client, server)
        print({name: round(found[-1], 1) for name, found in rates.items()}, flush=True)
    return rates


@asynccontextmanager
async def _reading(
    client: Client, server: Server, request: Request, *, slow: bool
) -> AsyncIterator[None]:
    """Have a ninth request read for as long as the context lasts."""
    started = asyncio.Event()

    async def read() -> None:
        async with _posted(client, server, request, limit=_SLOW_BYTES if slow else 0) as chunks:
            async for _ in chunks:
                started.set()

    reader = asyncio.create_task(read())
    await started.wait()
    try:
        yield
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


@asynccontextmanager
async def _posted(
    client: Client, server: Server, request: Request, limit: int = 0
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Send a request for an Arrow stream; yield its bytes, at most ``limit`` a second if any."""
    async with client.session.post(
        server.url + request.path, data=json.dumps(request.payload), headers=_ARROW
    ) as answer:
        if not answer.ok:
            raise RequestError(f"HTTP {answer.status}: {(await answer.text())[:500]}")

        async def slowly() -> AsyncIterator[bytes]:
            while chunk := await answer.content.read(limit):
                yield chunk
                await asyncio.sleep(1)

        yield slowly() if limit else answer.content.iter_any()


async def _preemptions(client: Client, server: Server) -> float:
    async with client.session.get(f"{server.url}/metrics") as answer:
        return sum(map(float, _PREEMPTIONS.findall(await answer.text())))


def streams_markdown(
    streams: Mapping[str, Any], rates: Mapping[str, Sequence[float]], machine: Mapping[str, Any]
) -> str:
    """Return the page."""
    memory = [
        (name, *(f"{size / 2**20:.0f}" for size in streams[name].values()))
        for name in ("before", "peak", "after")
    ]
    readers = [
        (name, f"{median(found):.1f}", _ratio(found, rates["alone"]))
        for name, found in rates.items()
    ]
    return (
        f"{pages.machine_line(machine, embedded_model_dir().name)}.\n\n"
        f"{streams['streams']} streams of the whole vocabulary in float16, {TOKENS} tokens each, "
        f"{AT_ONCE} at a time, {streams['preemptions']:.0f} preemptions, prompts in chunks of 64 "
        f"tokens: {streams['tokens_checked']} rows, each of the text's own token. Resident "
        f"memory, MiB:\n\n{pages.markdown_table(('', *streams['before']), memory)}\n"
        f"{READERS} readers of top-1000, alone and beside a ninth that reads fast, or 1 KB/s; "
        f"tokens a second of the eight, and the ratio to those alone (median, min to max of "
        f"{ROUNDS} rounds in turns):\n\n"
        f"{pages.markdown_table(('the ninth', 'tokens/s', 'ratio'), readers)}\n"
        f"`python -m loadtests.arrow_streams`\n"
    )


def _ratio(rates: Sequence[float], alone: Sequence[float]) -> str:
    ratios = sorted(rate / one for rate, one in zip(rates, alone, strict=True))
    return f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"


async def _run(out: Path) -> None:
    model = str(embedded_model_dir())
    async with running((SENSEFIELD,), model, CROWDED) as servers, connected() as client:
        streams = await measure_streams(client, servers[SENSEFIELD])
    async with running((SENSEFIELD,), model, ROOMY) as servers, connected() as client:
        rates = await measure_slow_reader(client, servers[SENSEFIELD])
    machine = describe_machine()
    content = {"machine": machine, "streams": streams, "rates": rates}
    text = streams_markdown(streams, rates, machine)
    print(f"\n{text}")
    pages.write(out, "streams.md", text)
    pages.write(out, "streams.json", json.dumps(content, indent=1) + "\n")


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.arrow_streams", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("docs/bench/arrow"), help="folder; %(default)s")
    asyncio.run(_run(parser.parse_args().out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
