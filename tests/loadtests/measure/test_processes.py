"""What a process has used, as it knows itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from loadtests.measure.processes import processor_time


def test_a_process_has_used_what_it_says_itself() -> None:
    before = time.process_time()
    found = processor_time(os.getpid())
    assert before <= found <= time.process_time()


def test_a_process_that_has_ended_has_no_time() -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    with pytest.raises(OSError, match="Invalid argument"):
        processor_time(ended.pid)
