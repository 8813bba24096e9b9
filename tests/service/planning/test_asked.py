"""What is kept of a request's rows, and the memory that they may take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from logit_processors.row_spec import DENSE, RowSpec
from service.planning.asked import Asked, prompt_bytes, prompt_spec, request_bytes, row_spec
from tests.entries import spec_of
from tests.service.planning.asking import WIDTH, asked


def test_more_of_anything_never_takes_less_memory() -> None:
    def size(distribution: dict[str, Any], tokens: int = 10, **fields: Any) -> int:
        request = asked(None, distribution, **fields)
        spec = row_spec(request, can_fail=False)
        assert spec is not None
        return request_bytes(request, spec, WIDTH, tokens)

    base = size({"top_k": 10})
    assert base > 0
    assert size({"top_k": 11}) > base
    assert size({"top_k": 10, "stages": ["base", "controlled"]}) == 2 * base
    assert size({"top_k": 10}, tokens=20) == 2 * base
    assert size({"top_k": 10}, choices=3) == 3 * base
    assert size({"top_k": 10}, stream=True) < base
    assert size({"top_k": 10, "encoding": "json"}) > base
    assert size({"top_k": 10, "dtype": "float16"}) < base
    assert size({"top_k": 10}, logprobs=5) > base
    assert size({"top_k": 10}, logprobs=-1) > size({"top_k": 10}, logprobs=5)
    assert size({"top_k": "all", "dtype": "float16"}, stream=True) == 10 * WIDTH * 2


@pytest.mark.parametrize(
    ("wanted", "spec"),
    [
        (asked(), None),
        (asked(distribution={"top_k": 3}), None),
        (asked(distribution={"top_k": 3, "prompt": True}), spec_of(3, controlled=True)),
        (asked(prompt_logprobs=0), spec_of(0, base=True)),
        (asked(prompt_logprobs=-1), spec_of(DENSE, base=True)),
        (asked(distribution={"top_k": 3}, prompt_logprobs=5), spec_of(5, base=True)),
        (
            asked(distribution={"top_k": 7, "prompt": True}, prompt_logprobs=5),
            spec_of(7, base=True, controlled=True),
        ),
        (asked(distribution={"prompt": True}, beam_search=True), None),
        (asked(prompt_logprobs=2, scored_token_ids=True), spec_of(2, base=True)),
    ],
)
def test_what_is_kept_of_a_prompt(wanted: Asked, spec: RowSpec | None) -> None:
    assert prompt_spec(wanted) == spec


def test_each_choice_has_the_rows_of_the_prompt() -> None:
    one = asked(distribution={"top_k": 3, "prompt": True})
    spec = prompt_spec(one)
    assert spec is not None
    many = replace(one, choices=5)
    assert prompt_bytes(many, spec, WIDTH, 7) == 5 * prompt_bytes(one, spec, WIDTH, 7)
