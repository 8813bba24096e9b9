"""A tenant's vectors, against an engine that records what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    StoreFullError,
    UnsupportedMediaError,
)
from service.vectors.exchange import read_upload
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import Entry, VectorStore
from tests.registry_support import (
    HIDDEN,
    MODEL,
    ONE,
    SHA_ONE,
    SHA_TWO,
    TWO,
    listed,
    meaning,
    new_registry,
)
from tests.unit_support import FakeEngine, safetensors


async def test_a_vector_put_is_resident_and_described(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    described, new = await registry.put("calm", ONE)
    assert new
    assert described == await registry.describe("calm")
    created, size = described.pop("created"), described.pop("bytes")
    assert (created or 0) > 1_700_000_000
    assert (size or 0) > 16
    assert described == {
        "id": "calm",
        "name": "calm",
        "object": "vector",
        "model": None,
        "made_from": {"upload": "safetensors"},
        "sha256": SHA_ONE,
        "space": "unembedding",
        "hidden_size": 4,
        "layers": [],
        "norm": pytest.approx(30**0.5),
        "layer_norms": {},
        "usable": True,
        "reason": None,
    }
    assert registry.content_of("calm") == SHA_ONE
    ((method, (((sha256, data, residual),), _)),) = engine.calls
    assert (method, sha256, residual) == ("sensefield_put_vectors", SHA_ONE, False)
    assert data == read_upload(ONE, MODEL).content.read_by_unembedding.tobytes()
    await registry.put("formal", TWO)
    ((_, _, residual),) = engine.calls[-1][1][0]
    assert residual is True


async def test_vectors_are_listed_by_name_a_page_at_a_time(registry: VectorRegistry) -> None:
    for name in ("c", "a", "b"):
        await registry.put(name, ONE)
    assert await listed(registry) == ["a", "b", "c"]
    seen, after = [], None
    for _ in range(3):
        (described,), more = await registry.describe_all(1, after)
        after = described["id"]
        seen.append((after, more))
    assert seen == [("a", True), ("b", True), ("c", False)]
    await registry.delete("b")
    page, more = await registry.describe_all(5, "b")
    assert ([described["id"] for described in page], more) == (["c"], False)
    assert await registry.describe_all(5, "c") == ([], False)


async def test_a_name_put_again_means_the_new_content(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    _, new = await registry.put("a", TWO)
    assert not new
    assert registry.content_of("a") == SHA_TWO
    assert engine.resident == {SHA_TWO}
    assert await listed(registry) == ["a"]


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
    assert (await registry.describe("b"))["sha256"] == SHA_ONE


async def test_a_full_store_refuses_new_names_only(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    for name in ("a", "b", "c"):
        await registry.put(name, ONE)
    with pytest.raises(StoreFullError) as caught:
        await registry.put("d", TWO)
    assert caught.value.param == "name"
    assert engine.resident == {SHA_ONE}
    await registry.put("a", TWO)
    await registry.delete("b")
    await registry.put("d", TWO)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_what_is_refused_leaves_everything_as_it_was(
    registry: VectorRegistry, engine: FakeEngine, tmp_path: Path
) -> None:
    def refuse(_: Entry | None) -> None:
        raise ConflictError("no")

    await registry.put("a", ONE)
    before, calls = contents_of(tmp_path), len(engine.calls)
    for name, data in (
        ("a", b"PK\x03\x04"),
        ("a", safetensors(direction=[1.0])),
        ("a", TWO[:-1]),
        ("a", b""),
        ("B", ONE),
        ("../a", ONE),
        ("a\0", ONE),
    ):
        with pytest.raises((BadRequestError, UnsupportedMediaError)):
            await registry.put(name, data)
    with pytest.raises(ConflictError):
        await registry.put("a", TWO, refuse)
    with pytest.raises(ConflictError):
        await registry.delete("a", refuse)
    assert len(engine.calls) == calls
    engine.unscored_because = "every token has the same score"
    with pytest.raises(BadRequestError, match="the same score"):
        await registry.put("b", safetensors(direction=[5.0, 6.0, 7.0, 8.0]))
    engine.unscored_because = None
    engine.refuse_with = OSError("a worker died")
    with pytest.raises(OSError, match="a worker died"):
        await registry.put("b", TWO)
    assert contents_of(tmp_path) == before
    assert await listed(registry) == ["a"]
    engine.refuse_with = None
    await registry.put("b", TWO)
    assert engine.resident == {SHA_ONE, SHA_TWO}


async def test_unknown_names(registry: VectorRegistry) -> None:
    with pytest.raises(NotFoundError, match="'absent'"):
        registry.content_of("absent")
    for name in ("absent", "../names", "a\0"):
        await registry.refresh([name])
        for ask in (registry.describe, registry.read):
            with pytest.raises(NotFoundError):
                await ask(name)
        with pytest.raises(NotFoundError):
            await registry.nearest(name, 5, 3)
        with pytest.raises(NotFoundError):
            await registry.file(name, "gguf")
    with pytest.raises(NotFoundError) as caught:
        await registry.delete("absent")
    assert caught.value.code == "vector_not_found"
    with pytest.raises(BadRequestError):
        await registry.delete("../names")


async def test_nearest_tokens_come_from_the_engine(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    nearest = await registry.nearest("a", 5, 1)
    assert nearest["raised_ids"] == [1]
    assert engine.calls[-1] == ("sensefield_nearest", (SHA_ONE, 5, 1))
    engine.resident.clear()  # as if it had been deleted a moment ago
    with pytest.raises(NotFoundError):
        await registry.nearest("a", 5, 1)


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
async def test_a_file_put_elsewhere_is_the_same_vector(form: str, registry: VectorRegistry) -> None:
    await registry.put("a", TWO)
    data, sha256 = await registry.file("a", form)  # type: ignore[arg-type]
    described, _ = await registry.put("b", data)
    assert described["sha256"] == sha256 == SHA_TWO


async def test_what_cannot_be_read_in_logit_space_steers_the_residual_stream(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(HIDDEN, unscored_because="no unembedding")
    store = VectorStore(tmp_path)
    registry = VectorRegistry(store, engine, MODEL, await ResidualSupport.of(engine))
    await registry.put("layers", TWO)
    with registry.residual.lease([SHA_TWO]):
        await registry.bring_residual([registry.content_of("layers")])
    assert engine.residual == {SHA_TWO}
    assert not await registry.steers_logits("layers")
    for read in (registry.nearest, registry.nearest_by_layer):
        with pytest.raises(BadRequestError, match="no unembedding"):
            await read("layers", 5, 3)
    with pytest.raises(BadRequestError, match="logit space: no unembedding"):
        registry.scored_content_of("layers")
    await registry.delete("layers")
    engine.unscored_because = None
    await registry.put("layers", TWO)
    assert registry.scored_content_of("layers") == SHA_TWO
    assert await registry.steers_logits("layers")


async def test_tenants_see_their_own_vectors_and_the_shared_ones(registry: VectorRegistry) -> None:
    alice, bob = registry.of("alice"), registry.of("bob")
    await registry.put("shared", ONE)
    await alice.put("calm", TWO)
    assert await listed(alice) == ["calm", "shared"]
    assert await listed(bob) == await listed(registry) == ["shared"]
    assert await meaning(alice, "calm") == SHA_TWO
    assert await meaning(alice, "shared") == await meaning(bob, "shared") == SHA_ONE
    assert await meaning(bob, "calm") is await meaning(registry, "calm") is None
    described, _ = await alice.put("calm", ONE)
    assert described["name"] == described["id"] == "calm"


async def test_a_tenants_own_vector_takes_the_place_of_a_shared_one(
    registry: VectorRegistry,
) -> None:
    alice = registry.of("alice")
    await registry.put("calm", ONE)
    _, new = await alice.put("calm", TWO)
    assert new
    assert (await meaning(alice, "calm"), await meaning(registry, "calm")) == (SHA_TWO, SHA_ONE)
    assert await listed(alice) == ["calm"]
    assert (await alice.describe("calm"))["sha256"] == SHA_TWO
    await alice.delete("calm")
    assert await meaning(alice, "calm") == SHA_ONE
    with pytest.raises(NotFoundError):
        await alice.delete("calm")
    assert await meaning(registry, "calm") == SHA_ONE


@pytest.mark.parametrize("name", ["calm", "alice~calm", "~calm", "nobodys"])
async def test_another_tenants_vector_is_one_that_does_not_exist(
    name: str, registry: VectorRegistry
) -> None:
    alice, bob = registry.of("alice"), registry.of("bob")
    await alice.put("calm", ONE)
    told = NotFoundError(
        f"there is no vector {name.rpartition('~')[2]!r}", "vector", "vector_not_found"
    )
    await bob.refresh([name])
    for look in (bob.describe, bob.read, lambda name: bob.file(name, "gguf")):
        with pytest.raises(NotFoundError) as caught:
            await look(name)
        assert caught.value.to_body() == told.to_body()
    with pytest.raises(NotFoundError) as caught:
        bob.content_of(name)
    assert caught.value.to_body() == told.to_body()
    with pytest.raises((NotFoundError, BadRequestError)):
        await bob.delete(name)
    assert await meaning(alice, "calm") == SHA_ONE


async def test_a_restart_keeps_whose_a_vector_is(tmp_path: Path, engine: FakeEngine) -> None:
    await new_registry(tmp_path, engine).of("alice").put("calm", ONE)
    after = new_registry(tmp_path, engine)
    await after.load()
    assert await listed(after) == []
    assert await meaning(after.of("alice"), "calm") == SHA_ONE
