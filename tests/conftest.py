"""Servers that many files share, which tests run in one process, and how Hypothesis runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.integration.client import Client
from tests.integration.guarded import Guarded, serving_guarded
from tests.integration.servers import (
    ON_GPU,
    REPOSITORY,
    TRITON,
    V2_ENVIRONMENT,
    serving,
)

# No deadline: on a busy machine one slow example says nothing about the code.
settings.register_profile("sensefield", deadline=None, max_examples=100)
settings.load_profile("sensefield")

_ASKS = {
    "shared servers": re.compile(r"\b(?:v1|v2|crowded|page): "),
    "guarded server": re.compile(r"\bguarded: "),
    "faults": re.compile(r"\breport: Report"),
    "several servers": re.compile(r"\bbehind_router\b|--(?:tensor-parallel-size|api-server-count)"),
}
"""What tells files that go together: fixtures that serve many of them and take a minute to start,
and servers of several processes, for two of which at once there is too little memory."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the long form of the tests that have one."""
    parser.addoption("--full", action="store_true", help="every fault, bundles; writes docs/faults")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form."""
    return bool(request.config.getoption("--full"))


class Together(LoadScopeScheduling):
    """Keeps the files that ask for a shared server together, and each other file by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid.partition("::")[0])


@cache
def _scope_of(file: str) -> str:
    text = (REPOSITORY / file).read_text()
    return next((scope for scope, asks in _ASKS.items() if asks.search(text)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Schedule as above."""
    return Together(config, log)


@contextmanager
def _client_of(
    folder: Path, flags: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Client]:
    """Serve, and yield a client that is closed with the server."""
    with serving(folder, flags, environment) as server:
        client = Client(server)
        yield client
        client.http.close()


@pytest.fixture(scope="session")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server on the runner that vLLM picks: V1 on a CPU, V2 on a GPU."""
    flags = (
        # Small blocks, so that short prompts come out of the prefix cache too.
        *("--max-model-len", "1024", "--max-num-seqs", "16", "--block-size", "32"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )
    with _client_of(tmp_path_factory.mktemp("v1"), flags) as client:
        yield client


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A V1 server on a shared network: keys, and limits low enough to be met."""
    with serving_guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server on vLLM's V2 runner, as it runs on a GPU; without one in Triton's interpreter."""
    assert ON_GPU or TRITON.is_dir(), f"{TRITON} is missing: run the tests with `make test`"
    flags = ("--max-model-len", "256", "--max-num-seqs", "8")
    with _client_of(tmp_path_factory.mktemp("v2"), flags, V2_ENVIRONMENT) as client:
        yield client


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A V1 server with so little KV cache and such small steps that it must preempt."""
    flags = (
        *("--max-model-len", "512", "--max-num-seqs", "8", "--block-size", "32"),
        *("--num-gpu-blocks-override", "20", "--max-num-batched-tokens", "64"),
        *("--no-enable-prefix-caching", "--send-timeout-seconds", "2"),
    )
    with _client_of(tmp_path_factory.mktemp("crowded"), flags) as client:
        yield client
