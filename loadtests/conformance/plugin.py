"""A pytest plugin: vLLM's tests ask a server that runs, and what became of each is written down.

It stands in the place of their ``tests.utils``, which starts a server of its own for each file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import openai
import pytest
import transformers
from vllm import tokenizers
from vllm.transformers_utils import repo_utils

URL, MODEL, RESULTS = "CONFORMANCE_URL", "CONFORMANCE_MODEL", "CONFORMANCE_RESULTS"
"""Variables: the server's address, its model's folder, and the file for the results."""
WORKER = "PYTEST_XDIST_WORKER"
_SECONDS = 120
_KEY = "none"


class RemoteOpenAIServer:
    """The running server, for a test that would start one with arguments of its own."""

    DUMMY_API_KEY = _KEY

    def __init__(self, *_: Any, **__: Any) -> None:
        self.url_root = os.environ[URL]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def url_for(self, *parts: str) -> str:
        """Return the address of a path."""
        return "/".join((self.url_root, *parts))

    def get_client(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's client."""
        return openai.OpenAI(**self._options(options))

    def get_async_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's asynchronous client."""
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        mine = {"base_url": self.url_for("v1"), "api_key": _KEY, "timeout": _SECONDS}
        return {**mine, "max_retries": 0, **options}


class _Hub:
    """Knows no LoRA: a test that asks for its folder gets the model's."""

    def snapshot_download(self, **_: Any) -> str:
        return os.environ[MODEL]


def pytest_configure() -> None:
    """Put the server and the model in the place of what the tests would start and download."""
    utils: Any = ModuleType("tests.utils")
    utils.RemoteOpenAIServer = RemoteOpenAIServer
    utils.ROCM_EXTRA_ARGS = []
    sys.modules["tests.utils"] = utils
    auto: Any = transformers.AutoTokenizer
    load = auto.from_pretrained

    def from_pretrained(*_: Any, **__: Any) -> Any:
        return load(os.environ[MODEL])

    auto.from_pretrained = from_pretrained
    setattr(tokenizers, "get_tokenizer", from_pretrained)  # noqa: B010
    setattr(repo_utils, "hf_api", _Hub)  # noqa: B010


@contextmanager
def _results() -> Iterator[Any]:
    with Path(os.environ[RESULTS]).open("a") as file:
        yield file


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down what became of a test, and the last line of why it failed."""
    if WORKER in os.environ:
        return  # the process that started this one writes
    if report.when == "call" or report.failed or report.skipped:
        why = ""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = str(crash.message if crash is not None else report.longrepr)[:600]
        with _results() as file:
            line = {"test": report.nodeid, "outcome": report.outcome, "why": why}
            file.write(json.dumps(line) + "\n")
