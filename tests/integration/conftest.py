"""A reference model and its vocabulary, each made once for all tests that ask for it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from logit_processors.vocabulary import Vocabulary
from service.embedded_model import embedded_model_dir


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
