"""Two servers on one store against a dict."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.errors import NotFoundError, StoreFullError
from service.vectors.store import VectorStore
from tests.service.vectors.storing import ONE, TWO, all_names, any_entry, name


class TwoStores(RuleBasedStateMachine):
    """Two servers on one store are always what a dict would be."""

    names = st.sampled_from(["a", "b", "c"])
    contents = st.sampled_from([ONE, TWO, "3" * 64])
    which = st.integers(0, 1)

    @initialize(remote=st.booleans())
    def open(self, remote: bool) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        location = f"memory://{uuid.uuid4()}" if remote else self.folder.name
        self.stores = [VectorStore(location, max_names=2) for _ in range(2)]
        self.model: dict[str, str] = {}
        self.remote = remote

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(which=which, called=names, sha256=contents)
    def write(self, which: int, called: str, sha256: str) -> None:
        seen: list[Any] = []
        full = called not in self.model and len(self.model) == 2
        try:
            new = self.stores[which].write(name(called, sha256), sha256.encode(), seen.append)
        except StoreFullError:
            assert full
            return
        assert not full
        before = self.model.get(called)
        assert new == (before is None)
        assert [entry and entry.sha256 for entry in seen] == [before]
        self.model[called] = sha256

    @rule(which=which, called=names)
    def delete(self, which: int, called: str) -> None:
        try:
            self.stores[which].delete(called, any_entry)
        except NotFoundError:
            assert called not in self.model
        else:
            del self.model[called]

    @rule(which=which)
    def sweep(self, which: int) -> None:
        self.stores[which].sweep()

    @invariant()
    def both_see_the_same(self) -> None:
        for store in self.stores:
            found = {entry.name: entry for entry in all_names(store)}
            assert {called: entry.sha256 for called, entry in found.items()} == self.model  # type: ignore[union-attr]
            for sha256 in self.model.values():
                assert store.read(sha256) == sha256.encode()
        if not self.remote:
            contents = {path.stem for path in Path(self.folder.name, "contents").iterdir()}
            assert contents == set(self.model.values())


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(max_examples=40, stateful_step_count=20)
