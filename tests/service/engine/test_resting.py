"""Readers of vLLM's shared memory sleep on a CPU, and miss nothing."""

from __future__ import annotations

import threading
import time

import pytest
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue, SpinCondition
from vllm.platforms import current_platform

from service.engine import resting


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> tuple[MessageQueue, MessageQueue]:
    """A writer and its reader."""
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: True)
    monkeypatch.setattr(resting, "shares_its_cores", lambda: True)
    monkeypatch.setattr(SpinCondition, "wait", resting.soon_asleep(SpinCondition.wait))
    writer = MessageQueue(1, 1, [0])
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    ready = threading.Thread(target=writer.wait_until_ready)
    ready.start()
    reader.wait_until_ready()
    ready.join()
    return writer, reader


def test_a_reader_that_waits_takes_no_core(queues: tuple[MessageQueue, MessageQueue]) -> None:
    writer, reader = queues
    sent = threading.Timer(0.5, writer.enqueue, ["late"])
    before = time.thread_time()
    sent.start()
    assert reader.dequeue() == "late"
    assert time.thread_time() - before < 0.1, "it looked for half a second"
    sent.join()


@pytest.mark.parametrize("pause", [0.0, 0.0005, 0.001, 0.002, 0.006])
def test_each_message_wakes_it_soon(
    queues: tuple[MessageQueue, MessageQueue], pause: float
) -> None:
    writer, reader = queues

    def write() -> None:
        for number in range(200):
            writer.enqueue(number)
            if number % 2:  # the second of two that come at once gets no notification of its own
                time.sleep(pause + 0.006)
            else:
                time.sleep(pause)

    writing = threading.Thread(target=write)
    writing.start()
    # One that is lost would be found after a whole minute only.
    assert [reader.dequeue(timeout=20) for _ in range(200)] == list(range(200))
    writing.join()


@pytest.mark.parametrize(("on_cpu", "shares"), [(False, True), (True, False)])
def test_elsewhere_readers_look_as_vllm_has_it(
    on_cpu: bool, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: on_cpu)
    monkeypatch.setattr(resting, "shares_its_cores", lambda: shares)
    stock = SpinCondition.wait
    assert resting.soon_asleep(stock) is stock
