"""Servers that many files share, which tests run in one process, and how Hypothesis runs."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from service.embedded_model import embedded_model_dir
from tests.integration import shared
from tests.integration.client import Client
from tests.integration.servers import (
    ON_GPU,
    TRITON,
    V2_ENVIRONMENT,
    OwnServer,
    start,
    wait_until_ended,
)
from tests.plugins.installing import with_plugins
from tests.scheduling import Together, keep_groups, rank

# No deadline: on a busy machine one slow example says nothing about the code.
settings.register_profile("sensefield", deadline=None, max_examples=30)
settings.register_profile("full", deadline=None, max_examples=300)

SHARED = {"v1", "v2"}
"""Fixtures of the servers that all test processes share."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the long form of the tests that have one."""
    parser.addoption("--full", action="store_true", help="every fault, bundles; writes docs/faults")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples Hypothesis tries; make the run's folder before the processes."""
    settings.load_profile("full" if config.getoption("--full") else "sensefield")
    config.addinivalue_line("markers", "alone: no other process's test may use its shared servers")
    if not is_worker(config):
        shared.begin()
        config.pluginmanager.register(BusyTimes(), "busy_times")


def pytest_sessionfinish() -> None:
    """Wait until the servers of this process have ended, but for those that are shared."""
    wait_until_ended()
    shared.leave()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers of the run."""
    if not is_worker(config):
        shared.end()


def is_worker(config: pytest.Config) -> bool:
    """Say whether this is one of several processes that run tests for another."""
    return hasattr(config, "workerinput")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order in which they are handed out."""
    items.sort(key=rank)


@pytest.hookimpl(tryfirst=True)  # xdist's tells the scheduler that it may begin
def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the names of the groups to the scheduler."""
    if is_worker(session.config):
        keep_groups(session.items, os.environ["PYTEST_XDIST_WORKER"])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Keep groups and files together."""
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run each test in its turn on the servers that it shares."""
    asked = {*getattr(item, "fixturenames", ())}
    if callspec := getattr(item, "callspec", None):  # a parameter may name the server
        asked |= {value for value in callspec.params.values() if isinstance(value, str)}
    with shared.turn(asked & SHARED, item.get_closest_marker("alone") is not None):
        return (yield)


class BusyTimes:
    """Adds up when each process ran tests, and prints how long it had none."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a part of a test."""
        node = getattr(report, "node", None)
        name = node.gateway.id if node else "main"
        self._spans[name].append((report.start, report.stop))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print a line for each process."""
        spans = [span for each in self._spans.values() for span in each]
        if not spans:
            return
        first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
        for name, own in sorted(self._spans.items()):
            busy = sum(stop - start for start, stop in own)
            ended = max(stop for _, stop in own)
            terminalreporter.write_line(
                f"{name}: {busy:.0f} s busy, {last - first - busy:.0f} s idle, of these "
                f"{last - ended:.0f} s at the end"
            )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def only_full(full: bool) -> None:
    """Skip what is too long for every day."""
    if not full:
        pytest.skip("only with --full: run `make test-full`")


def client_of(name: str, start: Callable[[Path], OwnServer]) -> Iterator[Client]:
    """Yield a client of a shared server."""
    client = Client(shared.shared(name, start))
    yield client
    client.http.close()


@pytest.fixture(scope="session")
def v1() -> Iterator[Client]:
    """A server on the runner that vLLM picks: V1 on a CPU, V2 on a GPU."""
    flags = (
        # Small blocks, so that short prompts come out of the prefix cache too.
        *("--max-model-len", "1024", "--max-num-seqs", "16", "--block-size", "32"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )
    yield from client_of("v1", lambda folder: start(folder, flags, with_plugins(folder)))


@pytest.fixture(scope="session")
def v2() -> Iterator[Client]:
    """A server on vLLM's V2 runner, as it runs on a GPU; without one in Triton's interpreter."""
    assert ON_GPU or TRITON.is_dir(), f"{TRITON} is missing: run the tests with `make test`"
    flags = ("--max-model-len", "256", "--max-num-seqs", "8")
    yield from client_of(
        "v2", lambda folder: start(folder, flags, with_plugins(folder, V2_ENVIRONMENT))
    )


@pytest.fixture(scope="session")
def reference() -> Any:
    """The embedded model in Hugging Face transformers, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded_model_dir(), dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="session")
def vocabulary() -> Any:
    """The embedded model's vocabulary."""
    from transformers import AutoTokenizer

    from logit_processors.vocabulary import Vocabulary

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    return Vocabulary.from_tokenizer(tokenizer, 49152)
