"""vLLM's response models with distributions in their choices, for the OpenAPI only."""

from __future__ import annotations

from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
)
from vllm.entrypoints.openai.completion.protocol import (
    CompletionResponse,
    CompletionResponseChoice,
)

from service.schemas.answers import Distribution


class ChatChoice(ChatCompletionResponseChoice):
    """vLLM's choice, with distributions."""

    distribution: Distribution | None = None


class ChatAnswer(ChatCompletionResponse):
    """vLLM's response, with distributions in its choices."""

    choices: list[ChatChoice]


class TextChoice(CompletionResponseChoice):
    """vLLM's choice, with distributions."""

    distribution: Distribution | None = None


class TextAnswer(CompletionResponse):
    """vLLM's response, with distributions in its choices."""

    choices: list[TextChoice]
