"""Two vectors, and registries of servers that have them."""

from __future__ import annotations

from pathlib import Path

from service.errors import NotFoundError
from service.vectors.content import ModelFacts
from service.vectors.exchange import read_upload
from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, model_facts, safetensors

HIDDEN = 4
MODEL = model_facts(HIDDEN)
ONE, TWO = safetensors(direction=[1, 2, 3, 4]), safetensors(layer_5=[4, 3, 2, 1])
SHA_ONE, SHA_TWO = (read_upload(data, MODEL).content.sha256 for data in (ONE, TWO))


def new_registry(
    location: Path | str, engine: FakeEngine, model: ModelFacts = MODEL
) -> VectorRegistry:
    """Return the registry of a server on a store at some place."""
    return VectorRegistry(VectorStore(location, 3), engine, model)


async def meaning(registry: VectorRegistry, name: str) -> str | None:
    """Return what a request that names a vector gets, None if there is none."""
    await registry.refresh([name])
    try:
        return registry.content_of(name)
    except NotFoundError:
        return None


async def listed(registry: VectorRegistry) -> list[str]:
    """Return the names of all vectors."""
    page, more = await registry.describe_all(100)
    assert not more
    return [described["name"] for described in page]
