"""Times of events: how many there are, however the stream is cut into pieces."""

from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtests.measure.latency import Arrivals, gaps, percentile

EVENTS = [b'data: {"delta": "\\n\\n"}\n\n', b": ping\n\n", b"data: x\n\n", b"data: [DONE]\n\n"]
STREAM = b"".join(EVENTS)


def arrivals(*chunks: bytes) -> Arrivals:
    """Let every look at the clock be a second after the one before."""
    seen = Arrivals(count(1.0).__next__)
    for chunk in chunks:
        seen.see(chunk)
    return seen


def test_what_comes_together_has_one_time() -> None:
    assert arrivals(STREAM[:30], STREAM[30:])._times == [1.0, 2.0, 2.0, 2.0]


def test_tokens_are_all_but_the_role_the_usage_and_the_end() -> None:
    assert arrivals(*EVENTS, *EVENTS).of_tokens == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert arrivals(STREAM[:3]).of_tokens == []


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_events_are_counted_however_they_are_cut(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(edges)]
    times = arrivals(*chunks)._times
    assert len(times) == len(EVENTS)
    assert times == sorted(times)


def test_gaps_and_percentiles() -> None:
    assert gaps([1.0, 1.5, 3.5]) == [0.5, 2.0]
    assert gaps([1.0]) == gaps([]) == []
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([], 99) is None
