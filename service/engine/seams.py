"""Every place where Sensefield replaces code of vLLM, in one table (``row_seams`` holds a part).

A process asserts the rows that it installs, so a replacement that is not asserted cannot
exist. ``python -m service.engine.seams`` prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pkgutil import resolve_name

from service.engine import (
    engine,
    generators,
    grammar_backends,
    quick_start,
    resting,
    sampling_room,
    servable,
)
from service.engine.compatibility import assert_insides
from service.engine.residual import running
from service.engine.row_seams import ROWS
from service.engine.seam import Seam, State, Where

_STREAM = "the residual stream learns how a step's tokens lie, just before the model runs"

_STEPS = (
    Seam(
        owner="vllm.v1.worker.gpu_input_batch:CachedRequestState",
        attribute="__post_init__",
        parameters=("self",),
        wrap=generators.rewindable,
        why="V1 moves a seeded generator back, and those of a CPU have no offset",
    ),
    Seam(
        owner="vllm.v1.worker.gpu_model_runner:GPUModelRunner",
        attribute="_model_forward",
        parameters=(
            *("self", "input_ids", "positions", "intermediate_tensors"),
            *("inputs_embeds", "model_kwargs"),
        ),
        wrap=running.followed_v1,
        why=_STREAM,
    ),
    Seam(
        owner="vllm.v1.worker.gpu.model_runner:GPUModelRunner",
        attribute="prepare_attn",
        parameters=("self", "input_batch"),
        wrap=running.followed_v2,
        why=_STREAM,
        needs_triton=True,
    ),
    Seam(
        owner="vllm.v1.structured_output:StructuredOutputManager",
        attribute="grammar_init",
        parameters=("self", "request"),
        wrap=grammar_backends.compiled_by_own,
        why="the engine keeps the compiler of its first grammar, which others may not suit",
    ),
    Seam(
        owner="vllm.distributed.device_communicators.shm_broadcast:SpinCondition",
        attribute="wait",
        parameters=("self", "timeout_ms"),
        wrap=resting.soon_asleep,
        why="a process that waits for a step takes the core that another server's step needs",
    ),
)

_REQUESTS = (
    Seam(
        owner="vllm.v1.engine.input_processor:InputProcessor",
        attribute="process_inputs",
        parameters=(
            *("self", "request_id", "prompt", "params", "supported_tasks", "arrival_time"),
            *("lora_request", "tokenization_kwargs", "trace_headers", "priority"),
            *("data_parallel_rank", "resumable", "session_id", "kv_hints"),
        ),
        wrap=sampling_room.with_room,
        why="V2's sampler ends the engine over sizes that only show once vLLM has filled them in",
    ),
    Seam(
        owner="vllm.entrypoints.launchers.api_server.entry",
        attribute="build_and_serve",
        parameters=(
            *("engine_client", "listen_address", "sock", "args"),
            *("peer_loads", "uvicorn_kwargs"),
        ),
        wrap=engine.served_through,
        why="vLLM's own routes generate through the engine client that it builds itself",
    ),
    Seam(
        owner="vllm.engine.arg_utils:EngineArgs",
        attribute="create_engine_config",
        parameters=("self", "usage_context", "headless"),
        wrap=servable.checked_config,
        why="an engine that cannot be served is refused before it loads the model",
        where=Where.LAUNCHER,
    ),
)

_START = (
    Seam(
        owner="vllm.v1.engine.utils",
        attribute="get_mp_context",
        parameters=(),
        installer=quick_start.install,
        why="vLLM starts an engine on a CPU anew, and imports everything again for it",
        where=Where.LAUNCHER,
    ),
    Seam(
        owner="vllm.v1.executor.multiproc_executor",
        attribute="get_mp_context",
        parameters=(),
        installer=quick_start.install,
        why="a worker too, though in one unbound thread OpenMP has nothing to set up for it",
        where=Where.LAUNCHER,
    ),
    Seam(
        owner="vllm.model_executor.models.registry",
        attribute="_run_in_subprocess",
        parameters=("fn",),
        installer=quick_start.install,
        why="vLLM starts a process to look at a model's class, and imports everything for it",
        where=Where.LAUNCHER,
    ),
)

TABLE: tuple[Seam, ...] = (*ROWS, *_STEPS, *_REQUESTS, *_START)

_installed: set[Where] = set()


def assert_supported() -> None:
    """Refuse a vLLM whose internals differ from the supported ones.

    Raises:
        StartupError: as :func:`service.engine.compatibility.assert_insides` does.

    """
    assert_insides(TABLE)


def is_installed(where: Where) -> bool:
    """Say whether a kind's seams are installed in this process or the one it was forked from."""
    return where in _installed


def install(where: Where) -> None:
    """Replace vLLM's functions in a process, once.

    Args:
        where: the kind of this process.

    Raises:
        StartupError: vLLM's function is not as the table expects; then nothing is replaced.

    """
    rows = [seam for seam in TABLE if seam.where is where and seam.is_here]
    assert_insides(rows)
    _installed.add(where)
    replace(rows)


def replace(rows: Iterable[Seam]) -> None:
    """Replace vLLM's functions of some rows of the table."""
    for seam in rows:
        if seam.wrap is not None:
            setattr(resolve_name(seam.owner), seam.attribute, seam.wrap(seam.found()))
    for installer in {seam.installer for seam in rows}:
        if installer is not None:
            installer()


def main() -> int:
    """Print the table with the state of each row; return 1 if one does not fit."""
    states = [seam.state() for seam in TABLE]
    for seam, state in zip(TABLE, states, strict=True):
        span = f"since {seam.since}" + (f", until {seam.until}" if seam.until else "")
        print(f"{seam.name}: {state.value}\n    {seam.why} ({seam.where.value}; {span})")
    return int(any(state in (State.MISSING, State.DIFFERS) for state in states))


if __name__ == "__main__":
    sys.exit(main())
