"""Streams of ``/v1/messages`` that end with an error.

vLLM would parse the error as a chunk, and send its parsing errors to the client.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus

from service.api.streaming import error_in
from service.engine.vllm_errors import GracefulHTTPError


async def raising(chunks: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Yield the chunks of a chat's stream until one is an error.

    Raises:
        GracefulHTTPError: the stream's error.

    """
    async for chunk in chunks:
        if (error := error_in(chunk)) is not None:
            raise GracefulHTTPError(error.message, HTTPStatus(error.code))
        yield chunk
