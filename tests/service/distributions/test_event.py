"""One row's object alone is what a run of rows says of it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest

from logit_processors.row_spec import DENSE, RowSpec, TokenRow
from service.distributions.encode import DistributionEncoder
from service.distributions.event import SingleRowEncoder
from service.schemas.distribution import DistributionRequest
from tests.entries import spec_of
from tests.service.distributions.test_encode import (
    BOTH,
    SAMPLED,
    VOCAB,
    array,
    dense_rows,
    replace_half,
    top_rows,
)
from tests.unit_support import token_row

STAGES = (["base"], ["controlled"], ["base", "controlled"])


def asked(top_k: int | str, stages: list[str], **fields: Any) -> DistributionRequest:
    return DistributionRequest.model_validate({"top_k": top_k, "stages": stages, **fields})


def flat(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays of an object by their place in it."""
    found: dict[str, Any] = {"kl": array(answer["kl"])} if "kl" in answer else {}
    for part in ("sampled", "base", "controlled"):
        tensors = answer.get(part, {}).items()
        found |= {f"{part}.{name}": array(tensor) for name, tensor in tensors}
    return found


KEPT = [
    ("all", BOTH, dense_rows()),
    ("all", replace_half(BOTH), dense_rows(np.float16)),
    *((k, spec_of(wide, True, True), top_rows(wide)) for k, wide in ((1, 1), (2, 2), (2, 3))),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("kept", KEPT)
def test_a_row_alone_is_the_row_of_a_run(
    kept: tuple[int | str, RowSpec, list[TokenRow]], stages: list[str], dtype: str
) -> None:
    top_k, spec, rows = kept
    request = asked(top_k, stages, dtype=dtype)
    assert SingleRowEncoder.can_write(request, spec)
    encoder = DistributionEncoder(request, spec, VOCAB)
    whole = json.loads(encoder.encode(SAMPLED, rows))
    for at in (1, 0, 1):  # the text made of one row holds for the next
        alone = json.loads(encoder.encode(SAMPLED[at:][:1], rows[at:][:1]))
        assert {name: alone[name] for name in ("positions", "top_k", "vocab_size")} == {
            "positions": 1,
            "top_k": whole["top_k"],
            "vocab_size": VOCAB,
        }
        run = flat(whole)
        assert flat(alone).keys() == run.keys()
        for name, values in flat(alone).items():
            assert values.dtype == run[name].dtype
            np.testing.assert_array_equal(values, run[name][at : at + 1])


def test_the_text_of_an_event() -> None:
    row = token_row([[-0.25, -1.5]], [[3, 0]], controlled_logprob=-0.25, controlled_rank=1)
    encoder = DistributionEncoder(asked(2, ["controlled"]), spec_of(2, controlled=True), VOCAB)

    def tensor(dtype: str, shape: list[int], values: list[float]) -> dict[str, Any]:
        data = b64encode(np.array(values, np.dtype(dtype).newbyteorder("<")).tobytes()).decode()
        return {"dtype": dtype, "shape": shape, "data": data}

    assert json.loads(encoder.encode([3], [row])) == {
        "positions": 1,
        "top_k": 2,
        "vocab_size": VOCAB,
        "sampled": {
            "token_id": tensor("int32", [1], [3]),
            "controlled_logprob": tensor("float32", [1], [-0.25]),
            "controlled_rank": tensor("int32", [1], [1]),
        },
        "controlled": {
            "token_ids": tensor("int32", [1, 2], [3, 0]),
            "logprobs": tensor("float32", [1, 2], [-0.25, -1.5]),
            "entropy": tensor("float32", [1], [0.0]),
        },
    }


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({"top_k": 2, "encoding": "json"}, spec_of(2, controlled=True)),
        ({"top_k": 2, "top_p": 0.5}, spec_of(2, controlled=True)),
        ({"top_k": 2}, spec_of(DENSE, controlled=True)),
    ],
    ids=["lists", "ragged", "cut from dense"],
)
def test_what_is_not_sent_as_it_is_kept_is_not_written_so(
    fields: dict[str, Any], spec: RowSpec
) -> None:
    assert not SingleRowEncoder.can_write(DistributionRequest.model_validate(fields), spec)
