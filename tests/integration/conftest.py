"""Servers and a reference model, each started once for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from logit_processors.vocabulary import Vocabulary
from service.embedded_model import embedded_model_dir
from tests.integration.client import Client
from tests.integration.guarded import Guarded, serving_guarded
from tests.integration.servers import TRITON, V2_ENVIRONMENT, serving


@pytest.fixture(scope="session")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server on vLLM's V1 runner, as it runs on a CPU."""
    flags = (
        # Small blocks, so that short prompts come out of the prefix cache too.
        *("--max-model-len", "1024", "--max-num-seqs", "16", "--block-size", "32"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )
    with serving(tmp_path_factory.mktemp("v1"), flags) as server:
        client = Client(server)
        yield client
        client.http.close()


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server on vLLM's V2 runner, as it runs on a GPU, through Triton's interpreter."""
    assert TRITON.is_dir(), f"{TRITON} is missing: run the tests with `make test`"
    flags = ("--max-model-len", "256", "--max-num-seqs", "8")
    with serving(tmp_path_factory.mktemp("v2"), flags, V2_ENVIRONMENT) as server:
        client = Client(server)
        yield client
        client.http.close()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A V1 server on a shared network: keys, and limits low enough to be met."""
    with serving_guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A V1 server with so little KV cache and such small steps that it must preempt."""
    flags = (
        *("--max-model-len", "512", "--max-num-seqs", "8", "--block-size", "32"),
        *("--num-gpu-blocks-override", "20", "--max-num-batched-tokens", "64"),
        *("--no-enable-prefix-caching", "--send-timeout-seconds", "2"),
    )
    with serving(tmp_path_factory.mktemp("crowded"), flags) as server:
        client = Client(server)
        yield client
        client.http.close()


@pytest.fixture(scope="session")
def reference() -> torch.nn.Module:
    """The same model in Hugging Face transformers, float32."""
    model = AutoModelForCausalLM.from_pretrained(embedded_model_dir(), dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """The model's vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    return Vocabulary.from_tokenizer(tokenizer, 49152)
