"""Which names are nearly the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.spelling import distance, nearest

KNOWN = ("logit_control", "distribution", "temperature", "stop", "seed", "n", "top_k", "force")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("logit_controls", "logit_control"),
        ("logitControl", "logit_control"),
        ("logits_control", "logit_control"),
        ("logit-contorl", "logit_control"),
        ("distributions", "distribution"),
        ("distrbutoin", "distribution"),
        ("temprature", "temperature"),
        ("stops", "stop"),
        ("topK", "top_k"),
        ("N", "n"),
        ("store", None),
        ("id", None),
        ("k", None),
        ("control", None),
        ("forces_me", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_the_nearest_name(name: str, meant: str | None) -> None:
    assert nearest(name, KNOWN) == meant


@pytest.mark.parametrize(
    ("left", "right", "slips"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("abcd", "abdc", 1),
        ("ca", "abc", 3),
        ("flaw", "lawn", 2),
    ],
)
def test_distances(left: str, right: str, slips: int) -> None:
    assert distance(left, right, 9) == distance(right, left, 9) == slips


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.integers(0, 6))
def test_a_distance_is_cut_at_the_most_that_is_asked(left: str, right: str, most: int) -> None:
    whole, cut = distance(left, right, 99), distance(left, right, most)
    assert cut == whole if whole <= most else cut > most
