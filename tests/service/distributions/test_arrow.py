"""Arrow schema, batches and messages, against hand-computed rows of four tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logit_processors.row_spec import DENSE, RowSpec, TokenRow
from service.distributions.arrow import BROKEN_OFF, END, ERROR, RESPONSE, ArrowEncoder
from service.distributions.token_texts import TokenTexts
from service.schemas.distribution import DistributionRequest
from tests.entries import spec_of
from tests.unit_support import FOUR, token_row

TEXTS = TokenTexts(FOUR)
BASE = [[-1.0, -2.0, -0.5, -np.inf], [-0.25, -3.0, -2.0, -4.0]]
CONTROLLED = [[-2.0, -1.0, -0.75, -5.0], [-0.5, -1.5, -2.5, -np.inf]]
BOTH = spec_of(DENSE, base=True, controlled=True)


def rows() -> list[TokenRow]:
    return [
        token_row(
            [base, controlled],
            None,
            base_logprob=base[0],
            controlled_logprob=controlled[0],
            base_rank=70000.0,
            controlled_rank=3.0,
            base_entropy=1.5,
            controlled_entropy=1.25,
            kl=0.5,
        )
        for base, controlled in zip(BASE, CONTROLLED, strict=True)
    ]


def encoder(spec: RowSpec = BOTH, **wanted: Any) -> ArrowEncoder:
    return ArrowEncoder(DistributionRequest.model_validate(wanted), spec, 4, TEXTS)


def read(encoder: ArrowEncoder, *messages: Any) -> Any:
    content = b"".join([encoder.head, *messages, END])
    return pa.ipc.open_stream(content).read_all()


def test_dense_rows_of_both_stages() -> None:
    made = encoder(top_k="all", stages=["base", "controlled"])
    table = read(made, made.rows(1, 5, [2, 0], rows()))
    assert table.to_pydict() == {
        "choice": [1, 1],
        "position": [5, 6],
        "token_id": [2, 0],
        "token": ["ab", "a"],
        "bytes": [b"ab", b"a"],
        "base_logprob": [-1.0, -0.25],
        "base_rank": [70000, 70000],
        "base_entropy": [1.5, 1.5],
        "base_logprobs": BASE,
        "controlled_logprob": [-2.0, -0.5],
        "controlled_rank": [3, 3],
        "controlled_entropy": [1.25, 1.25],
        "controlled_logprobs": CONTROLLED,
        "kl": [0.5, 0.5],
    }
    assert table.schema.field("base_logprobs").type == pa.list_(pa.float32(), 4)
    assert table.schema.metadata == {b"sensefield.top_k": b"4", b"sensefield.vocab_size": b"4"}


def test_top_k_in_half_precision() -> None:
    made = encoder(top_k=2, dtype="float16")
    table = read(made, made.rows(0, 0, [2, 0], rows()))
    assert table["controlled_token_ids"].to_pylist() == [[2, 1], [0, 1]]
    assert table["controlled_logprobs"].to_pylist() == [[-0.75, -1.0], [-0.5, -1.5]]
    assert table.schema.field("controlled_logprobs").type == pa.list_(pa.float16(), 2)
    assert "base_logprobs" not in table.column_names


def test_ragged_rows() -> None:
    made = encoder(top_k="all", top_p=0.6, stages=["base"])
    table = read(made, made.rows(0, 0, [2, 0], rows()))
    # exp(-0.5) = 0.61 and exp(-0.25) = 0.78: one token reaches the mass in either row.
    assert table["base_token_ids"].to_pylist() == [[2], [0]]
    assert table["base_logprobs"].to_pylist() == [[-0.5], [-0.25]]


def test_batches_follow_one_another() -> None:
    made = encoder(top_k=1)
    both = rows()
    table = read(made, made.rows(0, 0, [2], both[:1]), made.rows(0, 1, [0], both[1:]))
    assert table["position"].to_pylist() == [0, 1]
    assert table["controlled_token_ids"].to_pylist() == [[2], [0]]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_messages_read_the_same(compression: str) -> None:
    plain, packed = encoder(top_k="all"), encoder(top_k="all", compression=compression)
    messages = [made.rows(0, 0, [2, 0], rows()) for made in (plain, packed)]
    assert bytes(messages[0]) != bytes(messages[1])
    assert read(plain, messages[0]).equals(read(packed, messages[1]))


@pytest.mark.parametrize("key", [RESPONSE, ERROR])
def test_the_closing_batch_has_no_row_and_tells(key: str) -> None:
    made = encoder(top_k=1)
    content = b"".join([made.head, made.closing(key, b'{"a": 1}'), END])
    batch, metadata = pa.ipc.open_stream(content).read_next_batch_with_custom_metadata()
    assert batch.num_rows == 0
    assert metadata == {key.encode(): b'{"a": 1}'}
    assert read(made, made.closing(key, b"")).num_rows == 0


def test_what_is_broken_off_cannot_be_read_to_its_end() -> None:
    made = encoder(top_k=1)
    message = bytes(made.rows(0, 0, [2, 0], rows()))
    reader = pa.ipc.open_stream(made.head + message + BROKEN_OFF)
    assert reader.read_next_batch().num_rows == 2
    with pytest.raises(pa.ArrowInvalid):
        reader.read_next_batch()


@pytest.mark.parametrize(
    ("wanted", "rows_per_batch"),
    [
        ({"top_k": 1}, (4 << 20) // 8),
        ({"top_k": "all", "dtype": "float16"}, (4 << 20) // 8),
        ({"top_k": 2, "stages": ["base", "controlled"]}, (4 << 20) // 32),
    ],
)
def test_batches_are_bounded(wanted: dict[str, Any], rows_per_batch: int) -> None:
    assert encoder(**wanted).rows_per_batch == rows_per_batch


def test_a_row_larger_than_a_batch_is_one() -> None:
    wanted = DistributionRequest(top_k="all")
    made = ArrowEncoder(wanted, spec_of(DENSE, controlled=True), 2_000_000, TEXTS)
    assert made.rows_per_batch == 1
