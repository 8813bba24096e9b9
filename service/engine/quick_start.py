"""A start without importing torch and vLLM four times, which takes ten seconds each time.

On a GPU vLLM forks its engines from the API process, which has imported all of it. On a CPU it
starts them anew, because the settings of OpenMP only reach a new process. An engine computes
nothing, so it is forked here too; the workers, which compute, are started anew as before.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext, ForkContext, ForkProcess
from typing import TypeVar

from service.engine.family import end_with_parent

T = TypeVar("T")


class _Engine(ForkProcess):
    """A forked engine: it loads no plugins again, so it begins here to watch its parent."""

    def run(self) -> None:
        end_with_parent()
        super().run()


class _Engines(ForkContext):
    """The context that vLLM takes the processes of its engines from."""

    Process = _Engine


def install() -> None:
    """Have vLLM fork its engines, and look at a model's class where it is.

    Only in the process that starts the engines, before it does.
    """
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform
    from vllm.v1.engine import utils

    stock = utils.get_mp_context

    def context() -> BaseContext:
        found: BaseContext = stock()
        on_cpu = current_platform.is_cpu()
        return _Engines() if on_cpu or isinstance(found, ForkContext) else found

    utils.get_mp_context = context
    if current_platform.is_cpu():
        # Another process is there for CUDA, which must not be initialized in this one.
        registry._run_in_subprocess = _call


def _call(work: Callable[[], T]) -> T:
    return work()
