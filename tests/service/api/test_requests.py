"""vLLM's request models with Sensefield's fields: what they refuse names its field."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError

from service.api.requests import ChatRequest, TextRequest


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 3}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_a_refused_sampling_parameter_is_named(fields: dict[str, Any], param: str) -> None:
    for request in (
        ChatRequest(messages=[{"role": "user", "content": "Hi"}], **fields),
        TextRequest(prompt="Hi", **fields),
    ):
        with pytest.raises(VLLMValidationError) as refusal:
            request.to_sampling_params(2, {})
        assert refusal.value.parameter == param
