"""``distribution``: defaults, bad values and the path they are refused at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from logit_processors.row_spec import DENSE
from service.api.validation import from_validation
from service.schemas.distribution import DistributionRequest


class Body(BaseModel):
    """The part of a request body that is looked at here."""

    distribution: DistributionRequest | None = None


def test_defaults() -> None:
    asked = DistributionRequest.model_validate({})
    assert asked.top_k == asked.kept == 20
    assert asked.top_p is None
    assert asked.stages == ["controlled"]
    assert (asked.dtype, asked.encoding) == ("float32", "base64")


@pytest.mark.parametrize(("top_k", "kept"), [(1, 1), (151_936, 151_936), ("all", DENSE)])
def test_top_k_as_a_row_spec_has_it(top_k: int | str, kept: int) -> None:
    assert DistributionRequest.model_validate({"top_k": top_k}).kept == kept


@pytest.mark.parametrize(
    "fields",
    [{"top_p": 1}, {"top_p": 1e-9}, {"stages": ["controlled", "base"]}, {"dtype": "float16"},
     {"encoding": "json"}],
)  # fmt: skip
def test_the_edges_are_allowed(fields: dict[str, Any]) -> None:
    DistributionRequest.model_validate(fields)


BAD = [
    # JSON of the object, the field it is refused at, words of the message
    ('{"top_k": 0}', "top_k", ["0", "1"]),
    ('{"top_k": -1}', "top_k", ["-1", "1"]),
    ('{"top_k": "some"}', "top_k", ["'some'", "all"]),
    ('{"top_k": true}', "top_k", ["true", "integer"]),
    ('{"top_k": 1.5}', "top_k", ["1.5", "integer"]),
    ('{"top_k": null}', "top_k", ["null", "integer"]),
    ('{"top_p": 0}', "top_p", ["0"]),
    ('{"top_p": 1.5}', "top_p", ["1.5", "1"]),
    ('{"top_p": -0.5}', "top_p", ["-0.5", "0"]),
    ('{"top_p": NaN}', "top_p", ["nan", "finite"]),
    ('{"top_p": true}', "top_p", ["true", "number"]),
    ('{"stages": []}', "stages", ["at least 1"]),
    ('{"stages": ["base", "base"]}', "stages", ["once"]),
    ('{"stages": ["base", "controlled", "base"]}', "stages", ["at most 2"]),
    ('{"stages": ["sampled"]}', "stages[0]", ["'sampled'", "base", "controlled"]),
    ('{"stages": "base"}', "stages", ["'base'", "list"]),
    ('{"dtype": "float64"}', "dtype", ["'float64'", "float32", "float16"]),
    ('{"encoding": "hex"}', "encoding", ["'hex'", "base64", "json"]),
    ('{"stage": ["base"]}', "stage", ["not permitted"]),
]


@pytest.mark.parametrize(("text", "field", "words"), BAD, ids=[text for text, _, _ in BAD])
def test_a_bad_value_is_refused_at_its_path(text: str, field: str, words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"distribution": json.loads(text)})
    answer = from_validation([{**e, "loc": ("body", *e["loc"])} for e in caught.value.errors()])
    assert answer.param == f"distribution.{field}"
    assert all(word in answer.message for word in words), answer.message
