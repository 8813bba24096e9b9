"""Processes of an engine that sleep while they wait for one another, where they share cores.

The engine and its workers hand steps over in shared memory. vLLM's reader looks there again and
again until a second has passed without a message, for a step of a GPU is over before a sleeping
process wakes. On a CPU whose cores several servers share, another server's step needs the core
that such a reader takes.

A writer wakes a sleeping reader by ZeroMQ, which drops the second of two notifications within a
millisecond or two. So a reader looks for longer than that after each message and each notification,
and never sleeps for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from vllm.platforms import current_platform

from service.engine.quick_start import shares_its_cores

LOOKING_SECONDS = 0.005
LONGEST_SLEEP_MS = 20
Wait = Callable[..., None]


def soon_asleep(wait: Wait) -> Wait:
    """Return how a reader waits for a message: it looks for a moment, and then it sleeps."""
    if not (current_platform.is_cpu() and shares_its_cores()):
        return wait

    @wraps(wait)
    def waited(self: Any, timeout_ms: int | None = None) -> None:
        self.busy_loop_s = LOOKING_SECONDS
        before = time.monotonic()
        sleeps = before > self.last_read + LOOKING_SECONDS
        longest = LONGEST_SLEEP_MS if timeout_ms is None else min(timeout_ms, LONGEST_SLEEP_MS)
        wait(self, longest)
        after = time.monotonic()
        if sleeps and after - before < 0.9 * longest / 1000:
            self.last_read = after  # It was woken: more may come at once.

    return waited
