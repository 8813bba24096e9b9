"""The Markdown of a memory measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.measure.memory import REPEATED_AFTER, STREAM_TOKENS, STREAMS, WARM_SHAPES
from loadtests.measure.servers import SENSEFIELD, STOCK
from loadtests.report.pages import machine_line, markdown_table


def memory_markdown(
    streams: Mapping[str, Any],
    short: Mapping[str, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> str:
    """Return the page: two tables and what they show."""
    moments = [(name, streams[name]) for name in ("before", "peak", "after")]
    after = {
        name: _table([(f"after {row['requests']} requests", row["resident"]) for row in rows])
        for name, rows in short.items()
    }
    growth = _total(streams["peak"]) - _total(streams["before"])
    return (
        f"{machine_line(machine, settings['model'])}. Resident memory, MiB.\n\n"
        f"{STREAMS} streams of the whole vocabulary in float32 at once, {STREAM_TOKENS} tokens "
        f"each, {_mib(streams['received_bytes'])} MiB received; at most "
        f"{_mib(streams['promised_bytes'])} MiB were promised to them, and the server grew by "
        f"{_mib(growth)} MiB:\n\n"
        f"{_table(moments)}\n"
        f"Short requests, {REPEATED_AFTER} different ones in turn, one in nine left by its client "
        f"midway, once both servers had seen {WARM_SHAPES} lengths of prompts. Sensefield, with "
        f"logprobs, distributions and controls of all kinds:\n\n"
        f"{after[SENSEFIELD]}\n"
        f"Stock vLLM, the same chats without any of it:\n\n"
        f"{after[STOCK]}\n"
        f"`{settings['command']}`\n"
    )


def _table(moments: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    names = list(dict.fromkeys(name for _, sizes in moments for name in sizes))
    rows = [
        (moment, *(_mib(sizes.get(name, 0)) for name in names), _mib(_total(sizes)))
        for moment, sizes in moments
    ]
    return markdown_table(("", *names, "all"), rows)


def _total(sizes: Mapping[str, int]) -> int:
    return sum(sizes.values())


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f}"
