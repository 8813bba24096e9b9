"""``/v1/messages``: vLLM's, made to say what ended a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError

from service.api.streaming import error_in


def tell_errors(serving: Any) -> None:
    """Have a stream's error reach its client; vLLM takes it for a chunk, and tells what it lacks.

    Args:
        serving: vLLM's of Anthropic's dialect, None where the model has none.

    """
    if serving is None:
        return
    convert = serving.message_stream_converter

    def converted(chunks: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        return convert(raising(chunks))

    serving.message_stream_converter = converted


async def raising(chunks: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """Yield the chunks of a chat's stream.

    Raises:
        GracefulHTTPError: the stream's error.

    """
    async for chunk in chunks:
        if (error := error_in(chunk)) is not None:
            raise GracefulHTTPError(error.message, HTTPStatus(error.code))
        yield chunk
