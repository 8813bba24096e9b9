"""Rows given and taken in any order, beside a model that remembers who wants and who uses what."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from logit_processors.leased_rows import LeasedRows

CAPACITY = 3
CONTENTS = st.sampled_from("abcde")
HOLDERS = st.sampled_from(["", "other"])


class Leases(RuleBasedStateMachine):
    """The model: of each row its vector, the processes that want it and how many use it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = LeasedRows(CAPACITY)
        self.wanted: dict[str, set[str]] = {}
        self.row_of: dict[str, int] = {}
        self.uses: list[int] = []

    @property
    def taken(self) -> set[int]:
        return {*self.row_of.values(), *self.uses}

    @rule(content=CONTENTS, holder=HOLDERS)
    def put(self, content: str, holder: str) -> None:
        if content in self.row_of:
            self.rows._holders.add(content, holder)
        elif len(self.taken) == CAPACITY:
            with pytest.raises(IndexError):
                self.rows._place(content, holder)
            return
        else:
            row = self.rows._place(content, holder)
            assert row in set(range(CAPACITY)) - self.taken
            self.row_of[content] = row
        self.wanted.setdefault(content, set()).add(holder)

    @rule(content=CONTENTS, holder=HOLDERS)
    def drop(self, content: str, holder: str) -> None:
        self.rows.drop(content, holder)
        self.wanted.get(content, set()).discard(holder)
        if not self.wanted.get(content):
            self.wanted.pop(content, None)
            self.row_of.pop(content, None)

    @rule(content=CONTENTS)
    def acquire(self, content: str) -> None:
        row = self.rows.acquire(content)
        assert row == self.row_of.get(content)
        if row is not None:
            self.uses.append(row)

    @precondition(lambda self: self.uses)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.uses))
        self.uses.remove(row)
        self.rows.release(row)

    @invariant()
    def what_is_here_is_what_is_wanted(self) -> None:
        assert len(self.rows) == len(self.row_of)
        assert {content for content in "abcde" if content in self.rows} == set(self.row_of)


TestLeases = Leases.TestCase
