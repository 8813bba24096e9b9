"""A start without importing torch and vLLM four times, which takes ten seconds each time.

On a GPU vLLM forks its engines and workers from processes that have imported all of it. On a CPU it
starts them anew, because the settings of OpenMP only reach a new process. An engine computes
nothing, so it is forked here too. Workers compute: they are forked where OpenMP has no settings and
no threads, which a fork would lose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.context import BaseContext, ForkContext, ForkProcess
from typing import TypeVar

from service.engine.family import end_with_parent

T = TypeVar("T")


class _Forked(ForkProcess):
    """A forked engine or worker. It does not load plugins again, so it must watch its parent."""

    def run(self) -> None:
        end_with_parent()
        super().run()


class _Forks(ForkContext):
    """The multiprocessing context of vLLM's engines and workers."""

    Process = _Forked


def install() -> None:
    """Make vLLM fork its engines and workers, and inspect a model's class in this process.

    Call it only in the process that starts the engines, before it starts them.
    """
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform
    from vllm.v1.engine import utils
    from vllm.v1.executor import multiproc_executor

    on_cpu = current_platform.is_cpu()
    utils.get_mp_context = _forking(utils.get_mp_context, lambda: on_cpu)
    multiproc_executor.get_mp_context = _forking(
        multiproc_executor.get_mp_context, lambda: on_cpu and shares_its_cores()
    )
    if on_cpu:
        # vLLM inspects in a subprocess only to keep CUDA uninitialized in this process.
        registry._run_in_subprocess = _call


def _forking(
    stock: Callable[[], BaseContext], forks_anyway: Callable[[], bool]
) -> Callable[[], BaseContext]:
    def context() -> BaseContext:
        found = stock()
        return _Forks() if forks_anyway() or isinstance(found, ForkContext) else found

    return context


def shares_its_cores() -> bool:
    """Say whether a worker on a CPU computes in its only thread, on a core that others use too."""
    return (
        os.environ.get("OMP_NUM_THREADS") == "1"
        and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"
    )


def _call(work: Callable[[], T]) -> T:
    return work()
