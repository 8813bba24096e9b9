"""What names in the store mean, whatever happens to it, to an engine that records it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.errors import NotFoundError, StartupError, StoreFullError, StoreUnavailableError
from service.vectors import catalog
from service.vectors import files as files_module
from service.vectors.entries import UnusableVectorError
from service.vectors.files import FolderFiles
from service.vectors.registry import VectorRegistry
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
from tests.unit_support import FakeEngine, cancelled_in_call


async def test_two_names_share_one_resident_content(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    assert engine.methods() == ["put_vectors"]
    await registry.delete("a")
    assert engine.resident == {SHA_ONE}
    assert await meaning(registry, "b") == SHA_ONE
    await registry.delete("b")
    assert engine.resident == set()


async def test_a_restarted_server_has_the_same_vectors(
    registry: VectorRegistry, tmp_path: Path
) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    await registry.put("c", TWO)
    engine = FakeEngine(HIDDEN)
    again = new_registry(tmp_path, engine)
    await again.load()
    assert await again.describe_all(9) == await registry.describe_all(9)
    assert engine.resident == {SHA_ONE, SHA_TWO}
    ((_, (vectors, _)),) = engine.calls
    assert [content for content, _, _ in vectors] == [SHA_ONE, SHA_TWO], "all are scored at once"
    assert again.content_of("c") == SHA_TWO


async def test_one_vector_that_steers_nowhere_does_not_keep_others_out(
    registry: VectorRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.put("a", ONE)
    await registry.put("c", TWO)
    engine = FakeEngine(HIDDEN)

    def put(vectors: list[tuple[str, bytes, bool]], _holder: str) -> list[str | None]:
        return ["no direction" if content == SHA_ONE else None for content, _, _ in vectors]

    monkeypatch.setattr(engine, "_put_vectors", put)
    again = new_registry(tmp_path, engine)
    await again.load()
    assert again.content_of("c") == SHA_TWO
    with pytest.raises(UnusableVectorError, match="no direction"):
        again.content_of("a")


async def test_a_folder_that_hangs_holds_up_only_who_needs_it(
    registry: VectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.put("a", ONE)
    answers = threading.Event()
    answered: list[bool] = []

    def mark(self: VectorStore, name: str) -> None:
        answered.append(answers.wait(10))

    monkeypatch.setattr(VectorStore, "mark", mark)
    waiting = asyncio.create_task(registry.refresh(["a"]))
    await registry.refresh([])
    await asyncio.sleep(0)
    assert not waiting.done()
    answers.set()
    await waiting
    assert answered
    assert all(answered), "the event loop stood still until the wait was given up"


@pytest.mark.parametrize("remote", [False, True])
async def test_what_another_server_does_is_seen(
    remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LOOK_AGAIN_SECONDS", 1e-9)
    location = f"memory://{uuid.uuid4()}" if remote else tmp_path
    engine = FakeEngine(HIDDEN)
    here, there = new_registry(location, engine), new_registry(location, FakeEngine(HIDDEN))
    assert await meaning(here, "a") is None
    await there.put("a", ONE)
    assert await meaning(here, "a") == SHA_ONE
    assert engine.resident == {SHA_ONE}
    await there.put("a", TWO)
    assert await meaning(here, "a") == SHA_TWO
    assert engine.resident == {SHA_TWO}
    await here.put("a", ONE)
    assert await meaning(there, "a") == SHA_ONE
    await there.delete("a")
    assert await listed(here) == []
    assert await meaning(here, "a") is None
    assert engine.resident == set()
    for ask in (here.describe, here.read, here.delete):
        with pytest.raises(NotFoundError):
            await ask("a")


async def test_a_name_that_has_not_changed_is_not_read_again(
    registry: VectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.put("a", ONE)
    await registry.refresh(["a"])
    reads: list[object] = []

    def nothing(self: FolderFiles, paths: object) -> dict[str, bytes]:
        reads.append(paths)
        return {}

    monkeypatch.setattr(FolderFiles, "read", nothing)
    await registry.refresh(["a", "a"])
    assert reads == []
    assert registry.content_of("a") == SHA_ONE
    await registry.refresh(["absent"])
    assert reads == [["names/absent.json"]]


async def test_a_name_that_is_not_there_is_looked_for_once(
    registry: VectorRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, other = registry.of("alice"), new_registry(tmp_path, FakeEngine(HIDDEN)).of("alice")
    await registry.put("a", ONE)
    assert await meaning(alice, "a") == SHA_ONE
    looked: list[Sequence[str]] = []
    found = VectorStore.find

    def find(store: VectorStore, names: Sequence[str]) -> dict[str, Entry]:
        looked.append(names)
        return found(store, names)

    monkeypatch.setattr(VectorStore, "find", find)
    assert await meaning(alice, "a") == SHA_ONE
    assert looked == []
    await other.put("a", TWO)
    looked.clear()
    assert await meaning(alice, "a") == SHA_TWO
    assert [list(names) for names in looked] == [["alice~a"]]


async def test_only_the_newest_of_the_names_that_are_not_there_are_remembered(
    registry: VectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "MAX_MISSING", 3)
    await registry.refresh([f"absent{at}" for at in range(5)])
    monkeypatch.setattr(VectorStore, "find", None)
    await registry.refresh(["absent2", "absent3", "absent4"])
    with pytest.raises(TypeError):
        await registry.refresh(["absent1"])


async def test_a_vector_whose_client_left_while_it_was_stored_is_stored(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await cancelled_in_call(engine, registry.put("a", ONE))
    # Changes come one after another: the next one waits for it.
    await registry.put("b", TWO)
    assert await listed(registry) == ["a", "b"]
    await registry.delete("a")
    assert engine.resident == {SHA_TWO}


async def test_names_that_others_deleted_are_forgotten_with_the_next_change(
    registry: VectorRegistry, engine: FakeEngine, tmp_path: Path
) -> None:
    other = new_registry(tmp_path, FakeEngine(HIDDEN))
    await registry.put("a", ONE)
    await other.delete("a")
    await other.put("b", TWO)
    assert await meaning(registry, "b") == SHA_TWO
    assert engine.resident == {SHA_TWO}


async def test_a_content_that_moves_while_it_is_read_is_followed(
    registry: VectorRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = VectorStore(tmp_path)
    await new_registry(tmp_path, FakeEngine(HIDDEN)).put("a", ONE)
    made = await new_registry(tmp_path, FakeEngine(HIDDEN)).describe("a")
    read = VectorStore.read

    def overtaken(self: VectorStore, sha256: str) -> bytes | None:
        monkeypatch.setattr(VectorStore, "read", read)
        asyncio.run(new_registry(tmp_path, FakeEngine(HIDDEN)).put("a", TWO))
        return self.read(sha256)

    monkeypatch.setattr(VectorStore, "read", overtaken)
    assert await meaning(registry, "a") == SHA_TWO
    assert made["sha256"] == SHA_ONE
    assert other.read(SHA_ONE) is None


async def test_changes_at_once_come_one_after_another(
    registry: VectorRegistry, engine: FakeEngine
) -> None:
    await asyncio.gather(*(registry.put("a", data) for data in [ONE, TWO] * 5))
    assert engine.resident == {registry.content_of("a")}
    full = await asyncio.gather(
        *(registry.put(f"n{at}", ONE) for at in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, StoreFullError) for result in full) == 2
    assert len(await listed(registry)) == 3


async def test_vectors_are_counted(registry: VectorRegistry) -> None:
    await registry.put("a", ONE)
    await registry.put("b", ONE)
    counts = [
        REGISTRY.get_sample_value("sensefield_vectors", {"state": state})
        for state in ("stored", "resident")
    ]
    assert counts == [2, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"hidden_size": 8}, "hidden size 4"), ({"layers": 5}, "layer 5"), ({"largest": 3.0}, "4")],
)
async def test_a_vector_of_another_model_is_told_of_and_can_only_be_taken_away(
    change: dict[str, Any], words: str, registry: VectorRegistry, tmp_path: Path
) -> None:
    await registry.put("a", TWO)
    engine = FakeEngine(8)
    other = new_registry(tmp_path, engine, model=replace(MODEL, **change))
    await other.load()
    assert engine.resident == set()
    described = await other.describe("a")
    assert described["usable"] is False
    assert words in (described["reason"] or "")
    assert described["sha256"] == SHA_TWO
    assert (await other.describe_all(9))[0] == [described]
    for _ in range(2):
        await other.refresh(["a"])
        with pytest.raises(UnusableVectorError, match=words) as caught:
            other.content_of("a")
        assert caught.value.status == 409
        assert caught.value.code == "vector_unusable"
    with pytest.raises(UnusableVectorError):
        await other.read("a")
    with pytest.raises(UnusableVectorError):
        await other.nearest("a", 5, 1)
    _, sha256 = await other.file("a", "safetensors")
    assert sha256 == SHA_TWO
    await other.delete("a")
    assert await listed(registry) == []


@pytest.mark.parametrize(
    ("damaged", "words"),
    [(None, "missing"), (TWO[:-1], "not a whole"), (TWO[:-2] + b"\x81\x40", "SHA-256"),
     (ONE, "SHA-256")],
    ids=["gone", "cut", "bits", "other"],
)  # fmt: skip
async def test_a_damaged_content_is_never_served(
    damaged: bytes | None, words: str, tmp_path: Path
) -> None:
    await new_registry(tmp_path, FakeEngine(HIDDEN)).put("a", TWO)
    (content,) = (tmp_path / "contents").iterdir()
    if damaged is None:
        content.unlink()
    else:
        content.write_bytes(damaged)
    engine = FakeEngine(HIDDEN)
    registry = new_registry(tmp_path, engine)
    await registry.load()
    assert engine.resident == set()
    described = await registry.describe("a")
    assert described["usable"] is False
    assert words in (described["reason"] or "")
    with pytest.raises(UnusableVectorError, match=words):
        registry.content_of("a")
    with pytest.raises(UnusableVectorError, match=words):
        await registry.file("a", "safetensors")
    await registry.put("a", TWO)
    assert await meaning(registry, "a") == SHA_TWO
    assert (await registry.describe("a"))["usable"] is True


async def test_what_was_damaged_and_has_been_replaced_elsewhere_is_not_blamed(
    registry: VectorRegistry, tmp_path: Path
) -> None:
    other = new_registry(tmp_path, FakeEngine(HIDDEN))
    await other.put("a", TWO)
    (content,) = (tmp_path / "contents").iterdir()
    content.write_bytes(ONE)
    await registry.load()
    assert (await registry.describe("a"))["usable"] is False
    await other.put("a", ONE)
    assert (await registry.describe("a"))["usable"] is True
    assert await meaning(registry, "a") == SHA_ONE


async def test_a_damaged_name_is_never_served(registry: VectorRegistry, tmp_path: Path) -> None:
    await registry.put("a", TWO)
    (tmp_path / "names" / "a.json").write_bytes(b"{")
    await registry.refresh(["a"])
    with pytest.raises(UnusableVectorError, match="cannot be read"):
        registry.content_of("a")
    assert await registry.describe("a") == {
        "id": "a",
        "name": "a",
        "object": "vector",
        "usable": False,
        "reason": "the file of its name in the store cannot be read",
    }
    await registry.delete("a")


async def test_a_vector_that_steers_nowhere_does_not_stop_the_start(
    registry: VectorRegistry, tmp_path: Path
) -> None:
    await registry.put("a", ONE)
    engine = FakeEngine(HIDDEN, unscored_because="no direction")
    again = new_registry(tmp_path, engine)
    await again.load()
    assert (await again.describe("a"))["reason"] == "no direction"


async def test_a_store_that_does_not_answer(
    registry: VectorRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await registry.put("a", ONE)

    def fail(self: FolderFiles, paths: object) -> None:
        raise StoreUnavailableError("gone fishing")

    monkeypatch.setattr(FolderFiles, "read", fail)
    with pytest.raises(StoreUnavailableError):
        await registry.refresh(["absent"])
    with pytest.raises(StartupError, match="gone fishing"):
        await new_registry(tmp_path, FakeEngine(HIDDEN)).load()
