"""The tokens before a row: the same on the host and on the device, drafts included."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.history import DeviceHistory, HostHistory
from tests.unit_support import CPU

TOKENS = st.lists(st.integers(0, 9), max_size=5)
REQUESTS = st.lists(
    st.tuples(TOKENS.filter(bool), TOKENS, st.integers(0, 3)), min_size=1, max_size=4
)
"""Each request: its prompt, its generated tokens, and the number of drafts among them."""


@given(REQUESTS, st.integers(1, 12), st.booleans())
def test_both_runners_see_the_same_tokens(
    requests: list[tuple[list[int], list[int], int]], count: int, prompt: bool
) -> None:
    committed = torch.full((len(requests), 16), 99, dtype=torch.int32)
    fed, offsets, slots, newest, positions = [], [], [], [], []
    outputs, prompts = [], []
    for slot, (before, output, some) in enumerate(requests):
        text = before + output
        # A draft is not committed yet: the device has it among the tokens that are fed.
        drafts = min(some, len(output))
        settled = len(text) - drafts
        committed[slot, :settled] = torch.tensor(text[:settled], dtype=torch.int32)
        for offset in range(drafts + 1):
            last = settled - 1 + offset
            fed.append(text[last])
            offsets.append(offset)
            slots.append(slot)
            newest.append(last)
            positions.append(last + 1 - len(before))
            outputs.append(output[: last + 1 - len(before)])
            prompts.append(before)
    on_device = DeviceHistory(
        torch.tensor(fed),
        torch.tensor(offsets),
        committed,
        torch.arange(len(fed)),
        torch.tensor(slots),
        torch.tensor(newest),
        torch.tensor(positions),
    )
    on_host = HostHistory(outputs, prompts, CPU)
    expected = on_host.last(count, prompt=prompt)
    assert torch.equal(on_device.last(count, prompt=prompt), expected)
    places = np.arange(0, len(fed), 2)
    at = torch.from_numpy(places)
    for history in (on_host, on_device):
        assert torch.equal(history.select(at, places).last(count, prompt=prompt), expected[at])


def test_the_newest_comes_first_and_nothing_comes_before_the_beginning() -> None:
    history = HostHistory([[5, 6], []], [[1, 2, 3], [4]], CPU)
    assert history.last(4).tolist() == [[6, 5, -1, -1], [-1, -1, -1, -1]]
    assert history.last(4, prompt=True).tolist() == [[6, 5, 3, 2], [4, -1, -1, -1]]
