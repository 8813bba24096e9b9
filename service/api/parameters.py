"""The field that a refused sampling parameter stands in, where vLLM tells it in words only."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from fastapi import FastAPI, Request, Response
from vllm.entrypoints.serve.exception_handling.handlers.exception import exception_handler
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams


def name_parameters(app: FastAPI) -> None:
    """Have refusals of vLLM's own routes name the field too."""

    async def answer(request: Request, error: Any) -> Response:
        name_parameter(error, SamplingParams.__struct_fields__)
        response: Response = await exception_handler(request, error)
        return response

    app.add_exception_handler(VLLMValidationError, answer)


def name_parameter(error: VLLMValidationError, fields: Container[str]) -> None:
    """Take the field from the message, whose first word it is, if the error does not tell it."""
    named = str(error).partition(" ")[0]
    if error.parameter is None and named in fields:
        error.parameter = named
