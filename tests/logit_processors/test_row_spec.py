"""Row specs: what they refuse, and their way over the wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from logit_processors.row_spec import DENSE, STATISTICS, RowSpec, masks_of
from tests.entries import spec_of

specs = st.builds(spec_of, st.integers(DENSE, 10**6), st.booleans(), st.booleans(), st.booleans())


@given(specs)
def test_a_spec_survives_the_wire(spec: RowSpec) -> None:
    assert RowSpec.model_validate(json.loads(json.dumps(spec.model_dump()))) == spec


@pytest.mark.parametrize("wire", [None, [], 3, "base", {"top": 1}, {"top_k": 1, "more": 2}])
def test_a_wire_that_is_no_spec_is_refused(wire: object) -> None:
    with pytest.raises(ValueError, match="RowSpec"):
        RowSpec.model_validate(wire)


def test_a_top_k_below_all_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to -1"):
        spec_of(top_k=-2)


@pytest.mark.parametrize(
    ("base", "controlled", "stages"),
    [
        (False, False, ()),
        (True, False, ("base",)),
        (False, True, ("controlled",)),
        (True, True, ("base", "controlled")),
    ],
)
def test_stages_come_in_the_order_in_which_rows_carry_them(
    base: bool, controlled: bool, stages: tuple[str, ...]
) -> None:
    assert spec_of(5, base, controlled).stages == stages


def test_statistics_are_named_once() -> None:
    assert len(set(STATISTICS)) == len(STATISTICS) == 8


GRAMMAR = StructuredOutputsParams(choice=["yes"])


@pytest.mark.parametrize(
    ("params", "masks"),
    [
        (SamplingParams(), ()),
        (SamplingParams(allowed_token_ids=[1]), ()),
        (SamplingParams(bad_words=["a"]), ()),
        (SamplingParams(min_tokens=2), ()),
        (SamplingParams(structured_outputs=GRAMMAR), ("structured_outputs",)),
        (
            SamplingParams(min_tokens=2, structured_outputs=GRAMMAR),
            ("min_tokens", "structured_outputs"),
        ),
        (
            SamplingParams(allowed_token_ids=[1], bad_words=["a"]),
            ("allowed_token_ids", "bad_words"),
        ),
    ],
)
def test_masks_that_may_leave_no_token_are_named(
    params: SamplingParams, masks: tuple[str, ...]
) -> None:
    assert masks_of(params) == masks
