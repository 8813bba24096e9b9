"""Shared parts of ``/v1/score`` and ``/v1/lens``: their prompt, and the plan of their control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from service.api.context import Context
from service.api.documentation import statuses
from service.api.prompts import check_tokens
from service.distributions.arrow import MEDIA_TYPE
from service.engine.vllm_errors import RetryableRequestError, VLLMValidationError
from service.errors import BadRequestError, NotFoundError, SaturatedError, echo
from service.planning.asked import Asked
from service.planning.plan import Plan
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest
from service.schemas.sight import Prompted


def answered(model: Any) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these routes."""
    description = "JSON; with `Accept: application/vnd.apache.arrow.stream` Arrow."
    content: dict[str, Any] = {MEDIA_TYPE: {}}
    return {
        200: {"model": model, "description": description, "content": content},
        **statuses(404, 409),
    }


def check_model(name: str | None, request: Request) -> None:
    """Refuse a model that is not the served one."""
    if name is not None and not request.app.state.openai_serving_models.is_base_model(name):
        raise NotFoundError(f"the model {echo(name)} does not exist", "model", "model_not_found")


async def prompt_tokens(context: Context, asked: Prompted) -> list[int]:
    """Return a prompt's token ids; raise BadRequestError for a bad prompt."""
    if isinstance(asked.prompt, list):
        check_tokens(asked.prompt, len(context.vocabulary), "prompt")
        if len(asked.prompt) > context.prompts.max_tokens:
            raise BadRequestError(
                f"a prompt of {len(asked.prompt)} tokens; allowed: 1 to "
                f"{context.prompts.max_tokens}",
                "prompt",
            )
        return asked.prompt
    if asked.prompt is not None:
        return await asyncio.to_thread(context.prompts.encode, asked.prompt, "prompt")
    messages = [message.model_dump() for message in asked.messages or ()]
    return await asyncio.to_thread(context.prompts.encode, messages, "messages")


@asynccontextmanager
async def planned(
    context: Context, control: LogitControl, distribution: DistributionRequest | None = None
) -> AsyncIterator[Plan]:
    """Yield the plan of a request under control; release its resources when it has ended."""
    await context.vectors.refresh(control.vector_names())
    asked = Asked(
        control=control,
        distribution=distribution,
        logit_bias=None,
        logprobs=None,
        logprobs_field="logprobs",
        stream=False,
        choices=1,
        beam_search=False,
        scored_token_ids=False,
    )
    planner = await context.planner.knowing(control)
    plan = planner.plan(asked)
    try:
        await context.prepare(plan)
        yield plan
    except VLLMValidationError as error:
        raise BadRequestError(str(error), error.parameter) from None
    except RetryableRequestError as error:
        raise SaturatedError(str(error)) from None
    finally:
        plan.close()
