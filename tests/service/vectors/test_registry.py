"""Names and contents of a running server, against an engine that records what it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from service.errors import BadRequestError, NotFoundError, SensefieldError, StoreFullError
from service.vectors.content import parse
from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, safetensors

HIDDEN = 4
ONE, TWO = safetensors(direction=[1, 2, 3, 4]), safetensors(layer_5=[4, 3, 2, 1])
SHA_ONE, SHA_TWO = parse(ONE, HIDDEN).sha256, parse(TWO, HIDDEN).sha256


def new_registry(folder: Path, engine: FakeEngine, most: int = 3) -> VectorRegistry:
    return VectorRegistry(VectorStore(folder), engine, HIDDEN, most)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(HIDDEN)


@pytest.fixture
def registry(tmp_path: Path, engine: FakeEngine) -> VectorRegistry:
    return new_registry(tmp_path, engine)


async def test_a_vector_put_is_resident_and_described(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    described = await registry.put("calm", ONE)
    assert described["name"] == "calm"
    assert described["object"] == "vector"
    assert described["sha256"] == registry.content_of("calm") == SHA_ONE
    assert described["space"] == "unembedding"
    assert described == registry.describe("calm")
    ((method, (sha256, data, residual)),) = engine.calls
    assert (method, sha256, residual) == ("sensefield_put_vector", SHA_ONE, False)
    assert data == parse(ONE, HIDDEN).read_by_unembedding.tobytes()
    await registry.put("formal", TWO)
    assert engine.calls[-1][1][2] is True


async def test_vectors_are_listed_by_name(registry: VectorRegistry) -> None:
    for name in ("c", "a", "b"):
        await registry.put(name, ONE)
    assert [described["name"] for described in registry.describe_all()] == ["a", "b", "c"]


async def test_two_names_share_one_resident_content(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    assert engine.methods() == ["put_vector"]
    await registry.delete("a")
    assert engine.resident == {SHA_ONE}
    assert registry.content_of("b") == SHA_ONE
    await registry.delete("b")
    assert engine.resident == set()


async def test_a_name_put_again_means_the_new_content(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    await registry.put("a", TWO)
    assert registry.content_of("a") == SHA_TWO
    assert engine.resident == {SHA_TWO}
    assert len(registry.describe_all()) == 1


async def test_a_restarted_server_has_the_same_vectors(
    registry: VectorRegistry, tmp_path: Path
) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    await registry.put("c", TWO)
    engine = FakeEngine(HIDDEN)
    again = new_registry(tmp_path, engine)
    await again.load()
    assert again.describe_all() == registry.describe_all()
    assert engine.resident == {SHA_ONE, SHA_TWO}
    assert engine.methods() == ["put_vector", "put_vector"]


async def test_a_running_request_keeps_the_content_it_started_with(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    with registry.lease({SHA_ONE}), registry.lease({SHA_ONE}):
        await registry.put("a", TWO)
        assert engine.resident == {SHA_ONE, SHA_TWO}
        await registry.delete("a")
        assert engine.resident == {SHA_ONE}
    # What nobody holds any more goes with the next change.
    await registry.put("b", TWO)
    assert engine.resident == {SHA_TWO}


async def test_a_leased_content_put_again_is_not_lost(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    with registry.lease({SHA_ONE}):
        await registry.delete("a")
        await registry.put("b", ONE)
    await registry.put("c", TWO)
    assert engine.resident == {SHA_ONE, SHA_TWO}
    assert registry.describe("b")["sha256"] == SHA_ONE


async def test_a_full_store_refuses_new_names_only(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    for name in ("a", "b", "c"):
        await registry.put(name, ONE)
    with pytest.raises(StoreFullError) as caught:
        await registry.put("d", TWO)
    assert caught.value.param == "name"
    assert "3 vectors" in caught.value.message
    assert engine.resident == {SHA_ONE}
    await registry.put("a", TWO)
    await registry.delete("b")
    await registry.put("d", TWO)


async def test_a_refused_file_leaves_everything_as_it_was(
    registry: VectorRegistry, engine: FakeEngine, tmp_path: Path
) -> None:
    await registry.put("a", ONE)
    before = sorted(tmp_path.rglob("*"))
    for name, data in (("a", b"PK\x03\x04"), ("a", safetensors(direction=[1.0])), ("B", ONE)):
        with pytest.raises(BadRequestError):
            await registry.put(name, data)
    engine.refuse_with = RuntimeError("the vector gives every token the same score: no direction")
    with pytest.raises(BadRequestError, match="no direction"):
        await registry.put("b", TWO)
    engine.refuse_with = OSError("a worker died")
    with pytest.raises(OSError, match="a worker died"):
        await registry.put("b", TWO)
    assert sorted(tmp_path.rglob("*")) == before
    assert [described["name"] for described in registry.describe_all()] == ["a"]
    engine.refuse_with = None
    await registry.put("b", TWO)
    assert engine.resident == {SHA_ONE, SHA_TWO}


async def test_a_vector_of_a_text_remembers_it(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    described = await registry.put_text("ocean", " ocean", [7, 8])
    assert described["made_from"] == {"text": " ocean", "token_ids": [7, 8]}
    assert engine.calls[0] == ("sensefield_token_direction", ([7, 8],))
    assert described["hidden_size"] == HIDDEN
    assert engine.resident == {described["sha256"]}


async def test_a_text_without_tokens_has_no_direction(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await registry.put_text("nothing", "", [])
    assert caught.value.param == "from.text"
    assert engine.calls == []


async def test_unknown_names(registry: VectorRegistry) -> None:
    for ask in (registry.describe, registry.content_of):
        with pytest.raises(NotFoundError, match="'absent'"):
            ask("absent")
    with pytest.raises(NotFoundError) as caught:
        await registry.delete("absent")
    assert caught.value.code == "vector_not_found"
    with pytest.raises(NotFoundError):
        await registry.nearest("absent", 3)
    with pytest.raises(BadRequestError):
        await registry.delete("../names")


async def test_nearest_tokens_come_from_the_engine(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    nearest = await registry.nearest("a", 1)
    assert nearest["raised_ids"] == [1]
    assert engine.calls[-1] == ("sensefield_nearest", (SHA_ONE, 1))
    engine.resident.clear()  # as if it had been deleted a moment ago
    with pytest.raises(NotFoundError):
        await registry.nearest("a", 1)


async def test_changes_at_once_come_one_after_another(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await asyncio.gather(*(registry.put("a", data) for data in [ONE, TWO] * 5))
    assert engine.resident == {registry.content_of("a")}
    full = await asyncio.gather(
        *(registry.put(f"n{at}", ONE) for at in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, StoreFullError) for result in full) == 2
    assert len(registry.describe_all()) == 3


async def test_vectors_are_counted(registry: VectorRegistry) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    counts = [
        REGISTRY.get_sample_value("sensefield_vectors", {"state": state})
        for state in ("stored", "resident")
    ]
    assert counts == [2.0, 1.0]


async def _damaged(tmp_path: Path, damaged: bytes | None) -> VectorRegistry:
    """Return a restarted server whose one stored content was damaged, or removed."""
    await new_registry(tmp_path, FakeEngine(HIDDEN)).put("a", ONE)
    (content,) = (tmp_path / "contents").iterdir()
    if damaged is None:
        content.unlink()
    else:
        content.write_bytes(damaged)
    return new_registry(tmp_path, FakeEngine(HIDDEN))


@pytest.mark.parametrize(
    "damaged", [None, ONE[:-1], ONE[:-2] + b"\x81\x40", TWO], ids=["gone", "cut", "bits", "other"]
)
async def test_a_damaged_content_is_never_served_and_says_whose_it_is(
    damaged: bytes | None, tmp_path: Path
) -> None:
    registry = await _damaged(tmp_path, damaged)
    # Either the server refuses to start and names it, or it runs without that one vector.
    try:
        await registry.load()
    except SensefieldError as error:
        assert "'a'" in str(error) or SHA_ONE in str(error), str(error)  # noqa: PT017
        return
    assert registry.describe_all() == []
