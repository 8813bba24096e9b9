"""A guarded server and a reference model, each made once for all tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from logit_processors.vocabulary import Vocabulary
from service.embedded_model import embedded_model_dir
from tests.integration.guarded import Guarded, serving_guarded


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A V1 server on a shared network: keys, and limits low enough to be met."""
    with serving_guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


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
