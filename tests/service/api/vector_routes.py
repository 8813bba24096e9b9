"""The vector routes over HTTP, with a store of their own and an engine that only remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import FastAPI

from service.api import vector_making
from service.api import vectors as routes
from service.api.context import Context
from service.api.prompts import PromptEncoder
from service.distributions.token_texts import TokenTexts
from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.unit_support import FOUR, FakeEngine, FakeStates, model_facts, safetensors

MODEL = model_facts()
ONE = safetensors(direction=[1, 2, 3, 4])
URL = "/v1/vectors"


class Tokenizer:
    """Knows a text's bytes."""

    max_chars_per_token = 1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())


@asynccontextmanager
async def vector_routes(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes.router)
    app.include_router(vector_making.router)
    engine = FakeEngine()
    store = VectorStore(tmp_path, max_names=5, max_bytes=2000)
    app.state.sensefield = Context(
        planner=cast(Any, None),
        vectors=VectorRegistry(store, engine, MODEL),
        engine=engine,
        generating=cast(Any, None),
        model=MODEL,
        vocabulary=FOUR,
        texts=TokenTexts(FOUR),
        prompts=PromptEncoder(Tokenizer(), None, 40),
        states=cast(Any, FakeStates()),
        chat=None,
        completions=None,
        readiness=cast(Any, None),
        grammars=cast(Any, None),
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def refusal(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]
