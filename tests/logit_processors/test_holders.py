"""Holders against a naive model: a list of everything that was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logit_processors.holders import Holders

STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("xyz")))


def test_what_nobody_wants_may_go() -> None:
    assert Holders().remove("a", "x")


@given(STEPS)
def test_the_last_to_let_go_is_told(steps: list[tuple[bool, str, str]]) -> None:
    holders, wanted = Holders(), set()
    for adds, content, holder in steps:
        if adds:
            holders.add(content, holder)
            wanted.add((content, holder))
        else:
            wanted.discard((content, holder))
            left = any(each == content for each, _ in wanted)
            assert holders.remove(content, holder) == (not left)
