"""Engines and workers are forked, and end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.context import BaseContext, ForkContext, SpawnContext

import pytest
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.v1.engine import utils
from vllm.v1.executor import multiproc_executor

from loadtests.measure.processes import living
from service.engine import quick_start
from tests.waiting import wait_for

PARENT = """
import time
from service.engine.quick_start import _Forks

def engine():
    print("runs", flush=True)
    time.sleep(600)

process = _Forks().Process(target=engine)
process.start()
process.join()
"""


def test_an_engine_ends_with_a_killed_parent() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"runs\n"
        assert len(living(parent.pid)) == 2
        os.kill(parent.pid, signal.SIGKILL)
        wait_for(lambda: not living(parent.pid), "the engine to end")


ONE_THREAD = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.mark.parametrize(
    ("stock", "on_cpu", "openmp", "engines", "workers"),
    [
        (SpawnContext(), True, ONE_THREAD, True, True),
        # Cores to bind to, or threads that a fork would lose.
        (SpawnContext(), True, {"OMP_NUM_THREADS": "1"}, True, False),
        (SpawnContext(), True, {**ONE_THREAD, "OMP_NUM_THREADS": "2"}, True, False),
        (ForkContext(), False, {}, True, True),
        (SpawnContext(), False, ONE_THREAD, False, False),  # CUDA is initialized, for example
    ],
)
def test_processes_are_forked_where_they_can_be(
    stock: BaseContext,
    on_cpu: bool,
    openmp: dict[str, str],
    engines: bool,
    workers: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (utils, multiproc_executor):
        monkeypatch.setattr(module, "get_mp_context", lambda: stock)
    monkeypatch.setattr(registry, "_run_in_subprocess", "another process")
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: on_cpu)
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    for name, value in openmp.items():
        monkeypatch.setenv(name, value)
    quick_start.install()
    for module, forks in ((utils, engines), (multiproc_executor, workers)):
        found = module.get_mp_context()
        assert isinstance(found, quick_start._Forks) == forks
        assert forks or found is stock
    assert (registry._run_in_subprocess == "another process") == (not on_cpu)


def test_a_models_class_is_looked_at_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (utils, multiproc_executor):
        monkeypatch.setattr(module, "get_mp_context", module.get_mp_context)
    monkeypatch.setattr(registry, "_run_in_subprocess", None)
    quick_start.install()
    if current_platform.is_cpu():
        assert registry._run_in_subprocess(os.getpid) == os.getpid()
