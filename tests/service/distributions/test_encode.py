"""The ``distribution`` object from kept rows: dense, cut, ragged, in either encoding."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from logit_processors.row_spec import DENSE, RowSpec, TokenRow
from service.distributions import encode, tensors
from service.distributions.encode import DistributionEncoder
from service.distributions.stages import nucleus_lengths
from service.schemas.distribution import DistributionRequest
from tests.entries import spec_of
from tests.unit_support import token_row

VOCAB = 4
BASE = np.log([[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5]])
CONTROLLED = [[-0.25, -np.inf, -2.0, -3.0], [-1.0, -1.5, -0.75, -4.0]]
SAMPLED = [2, 0]
STATISTICS: list[dict[str, Any]] = [
    {"base_logprob": -2.0, "controlled_logprob": -2.5, "base_rank": 3.0, "controlled_rank": 2.0,
     "base_entropy": 1.25, "controlled_entropy": 0.5, "kl": 0.75},
    {"base_logprob": -2.25, "controlled_logprob": -1.0, "base_rank": 70000.0,
     "controlled_rank": 1.0, "base_entropy": 1.5, "controlled_entropy": 0.25, "kl": 0.0},
]  # fmt: skip
BOTH = spec_of(DENSE, base=True, controlled=True)


def dense_rows(dtype: type[np.floating[Any]] = np.float32) -> list[TokenRow]:
    return [
        token_row([BASE[at].tolist(), CONTROLLED[at]], None, dtype, **STATISTICS[at])
        for at in range(2)
    ]


def top_rows(k: int) -> list[TokenRow]:
    """The same rows as a spec with top_k keeps them."""
    rows = []
    for at in range(2):
        stages = np.array([BASE[at], CONTROLLED[at]])
        order = np.argsort(-stages, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(stages, order, 1)
        rows.append(token_row(values.tolist(), order.tolist(), **STATISTICS[at]))
    return rows


def array(tensor: Any) -> NDArray[Any]:
    if isinstance(tensor, list):
        return np.array(tensor)
    data = b64decode(tensor["data"])
    return np.frombuffer(data, np.dtype(tensor["dtype"])).reshape(tensor["shape"])


def encoded(request: dict[str, Any], spec: RowSpec, rows: list[TokenRow]) -> dict[str, Any]:
    """Return the object as a client parses it."""
    encoder = DistributionEncoder(DistributionRequest.model_validate(request), spec, VOCAB)
    parsed: dict[str, Any] = json.loads(encoder.encode(SAMPLED, rows))
    return parsed


TWO = {"stages": ["base", "controlled"]}


@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_both_stages_of_dense_rows(encoding: str) -> None:
    answer = encoded({"top_k": "all", **TWO, "encoding": encoding}, BOTH, dense_rows())
    assert (answer["positions"], answer["top_k"], answer["vocab_size"]) == (2, VOCAB, VOCAB)
    sampled = {name: array(tensor).tolist() for name, tensor in answer["sampled"].items()}
    assert sampled == {
        "token_id": SAMPLED,
        "base_logprob": [-2.0, -2.25],
        "controlled_logprob": [-2.5, -1.0],
        "base_rank": [3, 70000],
        "controlled_rank": [2, 1],
    }
    assert array(answer["base"]["entropy"]).tolist() == [1.25, 1.5]
    assert array(answer["controlled"]["entropy"]).tolist() == [0.5, 0.25]
    assert array(answer["kl"]).tolist() == [0.75, 0.0]
    never = -9999.0 if encoding == "json" else -np.inf
    expected = np.where(np.isneginf(CONTROLLED), never, CONTROLLED)
    assert array(answer["controlled"]["logprobs"]).tolist() == expected.tolist()
    # Lists hold as many digits as tell a float32 from its neighbours.
    base = array(answer["base"]["logprobs"]).astype(np.float32)
    np.testing.assert_array_equal(base, BASE.astype(np.float32))
    assert "token_ids" not in answer["base"]


def test_arrays_have_the_types_that_are_promised() -> None:
    answer = encoded({"top_k": 2, **TWO}, spec_of(2, True, True), top_rows(2))
    integers = [answer["sampled"][name] for name in ("token_id", "base_rank", "controlled_rank")]
    assert {t["dtype"] for t in [*integers, answer["base"]["token_ids"]]} == {"int32"}
    floats = [answer["kl"], answer["base"]["entropy"], answer["base"]["logprobs"]]
    assert {t["dtype"] for t in floats} == {"float32"}
    assert answer["base"]["logprobs"]["shape"] == [2, 2]


@pytest.mark.parametrize("stage", ["base", "controlled"])
def test_one_stage_tells_nothing_of_the_other(stage: str) -> None:
    spec = spec_of(DENSE, base=stage == "base", controlled=stage == "controlled")
    values = BASE.tolist() if stage == "base" else CONTROLLED
    rows = [token_row([values[at]], None, **STATISTICS[at]) for at in range(2)]
    answer = encoded({"top_k": "all", "stages": [stage]}, spec, rows)
    assert set(answer) == {"positions", "top_k", "vocab_size", "sampled", stage}
    assert set(answer["sampled"]) == {"token_id", f"{stage}_logprob", f"{stage}_rank"}


def test_a_stage_kept_for_openais_logprobs_is_not_shown() -> None:
    # The rows hold base for logprobs; the client asked to see controlled.
    answer = encoded({"top_k": 2, "stages": ["controlled"]}, spec_of(3, True, True), top_rows(3))
    assert "base" not in answer
    assert array(answer["controlled"]["token_ids"]).tolist() == [[0, 2], [2, 0]]
    assert array(answer["controlled"]["logprobs"]).tolist() == [[-0.25, -2.0], [-0.75, -1.0]]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.8, 1.0])
def test_dense_rows_are_cut_to_what_top_k_would_have_kept(k: int, top_p: float | None) -> None:
    request = {"top_k": k, "top_p": top_p, **TWO}
    from_dense = encoded(request, BOTH, dense_rows())
    assert from_dense == encoded(request, spec_of(k, True, True), top_rows(k))
    assert from_dense == encoded(request, spec_of(4, True, True), top_rows(4))


@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_ragged_rows_reach_the_mass_and_no_more(encoding: str) -> None:
    rows = top_rows(4)
    request = {"top_k": 4, "top_p": 0.7, "stages": ["base"], "encoding": encoding}
    stage = encoded(request, spec_of(4, True, True), rows)["base"]
    assert array(stage["offsets"]).tolist() == [0, 2, 4]
    assert array(stage["token_ids"]).tolist() == [0, 1, 3, 2]
    assert np.exp(array(stage["logprobs"])) == pytest.approx([0.5, 0.25, 0.5, 0.25])


def test_all_tokens_with_top_p_are_sorted_and_named() -> None:
    request = {"top_k": "all", "top_p": 0.8, "stages": ["base"]}
    answer = encoded(request, BOTH, dense_rows())
    assert answer["top_k"] == VOCAB
    assert array(answer["base"]["token_ids"]).tolist() == [0, 1, 2, 3, 2, 0]
    assert array(answer["base"]["offsets"]).tolist() == [0, 3, 6]


def test_float16_is_sent_as_float16() -> None:
    asked = {"top_k": "all", "dtype": "float16"}
    from_half = encoded(asked, replace_half(BOTH), dense_rows(np.float16))["controlled"]
    assert from_half["logprobs"]["dtype"] == "float16"
    assert array(from_half["logprobs"]).tolist() == CONTROLLED
    assert from_half["entropy"]["dtype"] == "float32"
    # Rows may be wider than was asked, if logprobs were asked too.
    assert encoded(asked, BOTH, dense_rows())["controlled"] == from_half


def replace_half(spec: RowSpec) -> RowSpec:
    return spec_of(spec.top_k, spec.base, spec.controlled, half=True)


def test_an_encoder_writes_runs_of_any_length() -> None:
    request = DistributionRequest.model_validate({"top_k": 2, **TWO, "encoding": "json"})
    encoder = DistributionEncoder(request, spec_of(2, True, True), VOCAB)
    rows = top_rows(2)
    whole = json.loads(encoder.encode(SAMPLED, rows))
    parts = [json.loads(encoder.encode(SAMPLED[at:][:1], rows[at:][:1])) for at in range(2)]
    assert [part["positions"] for part in parts] == [1, 1]
    assert parts[0]["kl"] + parts[1]["kl"] == whole["kl"]
    ids = [part["base"]["token_ids"] for part in parts]
    assert ids[0] + ids[1] == whole["base"]["token_ids"]


@given(
    st.lists(st.floats(-20, 0), min_size=1, max_size=12), st.floats(0.001, 1.0), st.integers(1, 12)
)
def test_nucleus_lengths_are_the_shortest_that_reach_the_mass(
    logits: list[float], top_p: float, k: int
) -> None:
    values = np.sort(np.array(logits))[::-1]
    logprobs = (values - np.log(np.exp(values).sum()))[None, :k]
    (length,) = nucleus_lengths(logprobs, top_p)
    mass, expected = 0.0, 0
    for value in logprobs[0]:
        mass += float(np.exp(value))
        expected += 1
        if mass >= top_p:
            break
    assert length == expected


def test_a_nucleus_is_never_empty() -> None:
    assert nucleus_lengths(np.array([[0.0, -np.inf], [-9.0, -9.0]]), 1e-6).tolist() == [1, 1]
    assert nucleus_lengths(np.log([[0.1, 0.1]]), 0.9).tolist() == [2]


@pytest.mark.parametrize("encoding", ["base64", "json"])
@pytest.mark.parametrize(
    "fields",
    [{"top_k": "all"}, {"top_k": "all", "dtype": "float16"}, {"top_k": 3}, {"top_p": 0.6}],
    ids=str,
)
def test_the_pieces_of_many_rows_are_their_object(
    encoding: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {"stages": ["base", "controlled"], "encoding": encoding, **fields}
    kept = spec_of(DENSE, base=True, controlled=True)
    encoder = DistributionEncoder(DistributionRequest.model_validate(request), kept, VOCAB)
    many = dense_rows() * 5
    whole = encoder.encode(SAMPLED * 5, many)
    assert b"".join(encoder.pieces(SAMPLED * 5, many)) == whole
    # Three blocks of rows, and arrays of more than one piece.
    for module in (encode, tensors):
        monkeypatch.setattr(module, "BLOCK", 3)
    made = list(encoder.pieces(SAMPLED * 5, many))
    assert b"".join(made) == whole
    assert max(map(len, made)) < 64


@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_processors_that_no_row_shows_are_named(encoding: str) -> None:
    request = DistributionRequest.model_validate({"top_k": "all", "encoding": encoding})
    spec, unseen = spec_of(DENSE, controlled=True), ["theirs:Processor"]
    named = DistributionEncoder(request, spec, VOCAB, unseen)
    rows = [token_row([CONTROLLED[at]], None, **STATISTICS[at]) for at in range(2)]
    for count in (1, 2):  # an event, and a whole answer
        assert json.loads(named.encode(SAMPLED[:count], rows[:count]))["unseen"] == unseen
    plain = DistributionEncoder(request, spec, VOCAB)
    assert "unseen" not in json.loads(plain.encode(SAMPLED, rows))
