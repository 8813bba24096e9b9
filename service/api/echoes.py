"""Echoed prompts of completions, in two cases that vLLM gets wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import orjson

from service.engine.vllm_requests import CompletionOutput

_DATA = "data: "
_FIRST = '"prompt_token_ids":['


def echo_is_lost(request: Any) -> bool:
    """Say whether vLLM leaves out the prompt's text, as it does if token ids are returned too."""
    return bool(request.echo and request.return_token_ids)


def keep_prompt_only(request: Any, output: CompletionOutput) -> None:
    """Remove the one token that vLLM generates and drops if only the prompt's echo is requested."""
    if request.echo and request.max_tokens == 0:
        output.token_ids = []


async def with_prompts(
    chunks: AsyncIterator[str], prompts: Sequence[str], choices: int
) -> AsyncGenerator[str, None]:
    """Pass a completion's events on, the first one of each choice with the prompt's text.

    Args:
        chunks: vLLM's events.
        prompts: the prompts' texts.
        choices: number of choices per prompt.

    """
    async for chunk in chunks:
        if _FIRST not in chunk:
            yield chunk
            continue
        event = orjson.loads(chunk.removeprefix(_DATA))
        for choice in event["choices"]:
            choice["text"] = prompts[choice["index"] // choices] + choice["text"]
        yield f"{_DATA}{orjson.dumps(event).decode()}\n\n"
