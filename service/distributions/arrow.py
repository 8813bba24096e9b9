"""Kept rows as Arrow: the schema of a request's stream, its record batches, its messages.

The IPC stream format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from logit_processors.row_spec import COLUMN, DENSE, RowSpec, TokenRow
from service.distributions.stages import (
    StageArrays,
    stage_arrays,
    stages_of,
    statistics_of,
)
from service.distributions.token_texts import TokenTexts
from service.schemas.distribution import DistributionRequest

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
RESPONSE, ERROR = "sensefield.response", "sensefield.error"
"""Keys of the closing batch's metadata: OpenAI's response, or the error that ended the stream."""
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Ends a stream."""
BROKEN_OFF = b"\xff\xff\xff\xff\x08\x00\x00\x00"
"""The head of a message without its body, so that every reader raises an error. Readers treat
the end of the bytes alone as the end of the stream."""
_LARGEST_BATCH = 4 << 20
"""Most bytes of one batch, unless a single row is larger."""
_NUMBERS = {
    np.dtype(np.int32): pa.int32(),
    np.dtype(np.float32): pa.float32(),
    np.dtype(np.float16): pa.float16(),
}


class ArrowEncoder:
    """Encodes the messages of one request's stream."""

    def __init__(
        self,
        request: DistributionRequest,
        spec: RowSpec,
        vocab_size: int,
        texts: TokenTexts,
        unseen: Sequence[str] = (),
    ) -> None:
        self.request = request
        self.spec = spec
        self._texts = texts
        self._stages = stages_of(request, spec)
        kept = vocab_size if request.kept == DENSE else request.kept
        number = np.dtype(request.dtype).itemsize + (0 if request.kept == DENSE else 4)
        self.rows_per_batch = max(1, _LARGEST_BATCH // (kept * number * len(self._stages)))
        """Most rows of one batch."""
        self.schema = _schema(request, self._stages, vocab_size, kept)
        if unseen:
            about = {**self.schema.metadata, b"sensefield.unseen": ",".join(unseen).encode()}
            self.schema = self.schema.with_metadata(about)
        self._options = pa.ipc.IpcWriteOptions(compression=request.compression)
        self.head: bytes = self.schema.serialize().to_pybytes()
        """The message that opens the stream."""

    def rows(
        self, choice: int, first: int, token_ids: Sequence[int], rows: Sequence[TokenRow]
    ) -> memoryview:
        """Return the message of a record batch.

        Args:
            choice: index of the choice.
            first: position of the first row.
            token_ids: the tokens of the rows.
            rows: a row for each token.

        """
        return self._message(self.batch(choice, first, token_ids, rows))

    def closing(self, key: str, value: bytes) -> bytes:
        """Return the message of a batch of no rows that carries ``value`` as metadata."""
        nothing = pa.RecordBatch.from_pylist([], schema=self.schema)
        return bytes(self._message(nothing, {key: value}))

    def batch(
        self, choice: int, first: int, token_ids: Sequence[int], rows: Sequence[TokenRow]
    ) -> Any:
        """Return the record batch of a run of rows."""
        count = len(rows)
        statistics = statistics_of(rows)
        data = [self._texts.data(token) for token in token_ids]
        columns = [
            _numbers(np.full(count, choice, np.int32)),
            _numbers(np.arange(first, first + count, dtype=np.int32)),
            _numbers(np.array(token_ids, np.int32)),
            pa.array([token.decode(errors="replace") for token in data], pa.utf8()),
            pa.array(data, pa.binary()),
        ]
        for stage in self._stages:
            columns += [
                _numbers(statistics[:, COLUMN[f"{stage}_logprob"]]),
                _numbers(statistics[:, COLUMN[f"{stage}_rank"]].astype(np.int32)),
                _numbers(statistics[:, COLUMN[f"{stage}_entropy"]]),
                *_lists(stage_arrays(self.request, self.spec, stage, rows)),
            ]
        if len(self._stages) == 2:
            columns.append(_numbers(statistics[:, COLUMN["kl"]]))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _message(self, batch: Any, metadata: dict[str, bytes] | None = None) -> memoryview:
        # pyarrow compresses and takes metadata only where it writes a stream: one is written
        # for each batch, and its head left out.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=self._options) as writer:
            writer.write_batch(batch, metadata)
        return memoryview(sink.getvalue())[len(self.head) : -len(END)]


def _schema(request: DistributionRequest, stages: Sequence[str], vocab_size: int, kept: int) -> Any:
    number = _NUMBERS[np.dtype(request.dtype)]
    ragged = request.top_p is not None
    fields = [
        pa.field("choice", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("token", pa.utf8(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
    ]
    for stage in stages:
        fields += [
            pa.field(f"{stage}_logprob", pa.float32(), nullable=False),
            pa.field(f"{stage}_rank", pa.int32(), nullable=False),
            pa.field(f"{stage}_entropy", pa.float32(), nullable=False),
        ]
        if request.kept != DENSE or ragged:
            fields.append(pa.field(f"{stage}_token_ids", _list(pa.int32(), kept, ragged)))
        fields.append(pa.field(f"{stage}_logprobs", _list(number, kept, ragged)))
    if len(stages) == 2:
        fields.append(pa.field("kl", pa.float32(), nullable=False))
    facts = {"top_k": kept, "vocab_size": vocab_size}
    return pa.schema(fields, {f"sensefield.{name}": str(value) for name, value in facts.items()})


def _list(number: Any, kept: int, ragged: bool) -> Any:
    return pa.list_(number) if ragged else pa.list_(number, kept)


def _lists(stage: StageArrays) -> list[Any]:
    """Return the list columns of a stage: token ids, unless dense, and log-probabilities."""
    arrays = [stage.logprobs] if stage.token_ids is None else [stage.token_ids, stage.logprobs]
    if stage.offsets is not None:
        offsets = _numbers(stage.offsets)
        return [pa.ListArray.from_arrays(offsets, _numbers(array)) for array in arrays]
    return [
        pa.FixedSizeListArray.from_arrays(_numbers(array.reshape(-1)), array.shape[1])
        for array in arrays
    ]


def _numbers(array: NDArray[Any]) -> Any:
    """Return an Arrow array on the memory of ``[n]`` numbers, which are copied if strided."""
    buffer = pa.py_buffer(np.ascontiguousarray(array))
    return pa.Array.from_buffers(_NUMBERS[array.dtype], len(array), [None, buffer])
