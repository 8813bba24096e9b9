"""A process that ends when the one that started it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from loadtests.measure.processes import living
from service.engine.family import end_with_parent

FAMILY = """
import multiprocessing, time
from service.engine.family import end_with_parent

def child():
    end_with_parent()
    print("watching", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
"""
END_SECONDS = 30


def test_a_child_ends_with_a_killed_parent() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"watching\n"
        assert len(living(parent.pid)) == 2
        parent.kill()
        deadline = time.monotonic() + END_SECONDS
        while living(parent.pid):
            if time.monotonic() > deadline:
                os.killpg(parent.pid, signal.SIGKILL)
                pytest.fail("the child outlived its parent")
            time.sleep(0.01)  # between two looks at a condition


BROTHERS = """
import multiprocessing, os, sys, time
from service.engine.family import engines_beside, is_alive

def other(title):
    # A process shows the first bytes of its command line as its title.
    os.execv(sys.executable, [title, "-ISc", "import time; time.sleep(600)"])

def api(engine):
    while engine not in engines_beside():
        time.sleep(0.01)
    assert engines_beside() == [engine] and is_alive(engine)
    print("seen", flush=True)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    assert engines_beside() == []
    engine = context.Process(target=other, args=["VLLM::EngineCore_DP0"])
    stranger = context.Process(target=other, args=["VLLM::Worker"])
    engine.start(), stranger.start()
    asked = context.Process(target=api, args=[engine.pid])
    asked.start(), asked.join()
    engine.kill(), engine.join()
    assert not is_alive(engine.pid)
    stranger.kill()
"""


def test_an_api_process_sees_the_engines_beside_it() -> None:
    command = [sys.executable, "-W", "ignore", "-c", BROTHERS]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=END_SECONDS)
    assert (ended.stdout, ended.stderr) == (b"seen\n", b"")


def test_the_first_process_of_a_server_has_no_parent_to_watch() -> None:
    end_with_parent()  # this one, for example
    assert "end-with-parent" not in {thread.name for thread in threading.enumerate()}
