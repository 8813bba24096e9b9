"""Pass the signals that end a command on to its servers."""

from __future__ import annotations

import asyncio
import signal


def cancel_on_signals() -> None:
    """Have SIGTERM and SIGHUP cancel the running task, as Ctrl-C does: it stops its servers."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
