"""``GET /v1/models/{model}``, beside vLLM's list of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from service.api.documentation import statuses
from service.api.route import SensefieldRoute
from service.engine.vllm_http import ModelCard
from service.errors import NotFoundError, echo

router = APIRouter(route_class=SensefieldRoute, tags=["models"])


@router.get(
    "/v1/models/{model:path}",
    response_model=None,
    responses={200: {"model": ModelCard}, **statuses(404)},
)
async def get_model(
    model: Annotated[str, Path(description="Its name, slashes and all.")], request: Request
) -> Response:
    """Describe one of the models that ``/v1/models`` lists."""
    listed = await request.app.state.openai_serving_models.show_available_models()
    if not model:  # the list itself, asked for with a slash at the end
        return JSONResponse(listed.model_dump())
    for card in listed.data:
        if card.id == model:
            return JSONResponse(card.model_dump())
    raise NotFoundError(f"the model {echo(model)} does not exist", "model", "model_not_found")
