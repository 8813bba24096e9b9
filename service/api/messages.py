"""Streams of ``/v1/messages`` that end with an error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError

from service.api.streaming import error_in


def tell_errors(serving: Any) -> None:
    """Let the error of a stream reach its client in its own words.

    vLLM parses the error as a chunk, and sends the errors of that parsing.

    Args:
        serving: vLLM's serving of ``/v1/messages``; None if the model has none.

    """
    if serving is None:
        return
    convert = serving.message_stream_converter

    def converted(chunks: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        return convert(raising(chunks))

    serving.message_stream_converter = converted


async def raising(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the chunks of a chat's stream until one is an error.

    Raises:
        GracefulHTTPError: the stream's error.

    """
    async for chunk in chunks:
        if (error := error_in(chunk)) is not None:
            raise GracefulHTTPError(error.message, HTTPStatus(error.code))
        yield chunk
