"""The ``distribution`` object of an answer, from a run of kept rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from logit_processors.row_spec import COLUMN, DENSE, RowSpec, TokenRow
from service.distributions.event import SingleRowEncoder
from service.distributions.stages import stage_arrays, stages_of, statistics_of
from service.distributions.tensors import BLOCK, PIECES, WRITERS, tensor_text
from service.schemas.distribution import DistributionRequest

_HOLE = "\0"
"""Placeholder for the parts that differ between a request's objects: size and arrays."""


class DistributionEncoder:
    """Encodes the objects of one request: fills the placeholders of a prepared text.

    Args:
        request: what the answer shows.
        spec: what was kept.
        vocab_size: logits of a row.
        unseen: logits processors of the server whose effect the rows do not show.

    """

    def __init__(
        self,
        request: DistributionRequest,
        spec: RowSpec,
        vocab_size: int,
        unseen: Sequence[str] = (),
    ) -> None:
        self.request = request
        self.spec = spec
        self._write = WRITERS[request.encoding]
        self._pieces = PIECES[request.encoding]
        self._stages = stages_of(request, spec)
        outline = orjson.dumps(_outline(request, self._stages, vocab_size, unseen))
        first, *rest = outline.split(orjson.dumps(_HOLE))
        self._first, self._rest = first, rest
        self._logprobs = [COLUMN[f"{stage}_logprob"] for stage in self._stages]
        self._ranks = [COLUMN[f"{stage}_rank"] for stage in self._stages]
        at = 1 + 2 * len(self._stages)
        ragged = () if request.top_p is None else range(len(self._stages))
        self._offsets = {at + 4 * stage + 2 for stage in ragged}
        """Indices of the offsets' placeholders, after a stage's ids and values."""
        self._event = (
            SingleRowEncoder(request, spec) if SingleRowEncoder.can_write(request, spec) else None
        )

    def encode(self, token_ids: Sequence[int], rows: Sequence[TokenRow]) -> bytes:
        """Return the object as JSON.

        Args:
            token_ids: the tokens of the rows.
            rows: a row for each of them.

        """
        if self._event is None or len(rows) != 1:
            return self._filled(len(rows), map(self._write, self._arrays(token_ids, rows)))
        if not self._event.text:
            holes = (tensor_text(array, b"%b") for array in self._arrays(token_ids, rows))
            self._event.text = self._filled(1, holes)
        return self._event.write(token_ids[0], rows[0])

    def pieces(self, token_ids: Sequence[int], rows: Sequence[TokenRow]) -> Iterator[bytes]:
        """Yield the object as JSON in short pieces, some of them empty.

        Args:
            token_ids: the tokens of the rows.
            rows: a row for each of them.

        """
        size = max(1, rows[0].logprobs.nbytes + rows[0].token_ids.nbytes)
        step = max(1, BLOCK // size)
        if len(rows) <= step:
            yield self.encode(token_ids, rows)
            return
        blocks: list[list[NDArray[Any]]] = []
        for at in range(0, len(rows), step):
            part = slice(at, at + step)
            blocks.append(list(self._arrays(token_ids[part], rows[part])))
            yield b""
        yield self._first + b"%d" % len(rows)
        for at, field in enumerate(zip(*blocks, strict=True)):
            yield self._rest[at]
            parts = _on_from_each_other(field) if at in self._offsets else field
            if sum(part.nbytes for part in parts) <= BLOCK:
                yield self._write(np.concatenate(parts))
            else:
                yield from self._pieces(parts)
        yield self._rest[-1]

    def _filled(self, count: int, tensors: Iterable[bytes]) -> bytes:
        """Return the outline with the texts of all arrays in it."""
        parts = [self._first, b"%d" % count]
        for text, tensor in zip(self._rest, tensors, strict=False):
            parts += text, tensor
        parts.append(self._rest[-1])
        return b"".join(parts)

    def _arrays(self, token_ids: Sequence[int], rows: Sequence[TokenRow]) -> Iterator[NDArray[Any]]:
        """Yield the arrays in the order of the outline."""
        statistics = statistics_of(rows)
        yield np.array(token_ids, np.int32)
        for column in self._logprobs:
            yield statistics[:, column]
        for column in self._ranks:
            yield statistics[:, column].astype(np.int32)
        for stage in self._stages:
            arrays = stage_arrays(self.request, self.spec, stage, rows)
            if arrays.token_ids is not None:
                yield arrays.token_ids
            yield arrays.logprobs
            if arrays.offsets is not None:
                yield arrays.offsets
            yield statistics[:, COLUMN[f"{stage}_entropy"]]
        if len(self._stages) == 2:
            yield statistics[:, COLUMN["kl"]]


def _on_from_each_other(blocks: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """Return the offsets of blocks, each of which begins with 0, as those of one run of rows."""
    joined = [blocks[0]]
    for block in blocks[1:]:
        joined.append(block[1:] + joined[-1][-1])
    return joined


def _outline(
    request: DistributionRequest, stages: Sequence[str], vocab_size: int, unseen: Sequence[str]
) -> dict[str, Any]:
    """Return the object with holes."""
    dense = request.kept == DENSE and request.top_p is None
    names = ["token_id", *(f"{stage}_{of}" for of in ("logprob", "rank") for stage in stages)]
    fields = [*([] if dense else ["token_ids"]), "logprobs"]
    fields += [*([] if request.top_p is None else ["offsets"]), "entropy"]
    return {
        "positions": _HOLE,
        "top_k": vocab_size if request.kept == DENSE else request.kept,
        "vocab_size": vocab_size,
        "sampled": dict.fromkeys(names, _HOLE),
        **{stage: dict.fromkeys(fields, _HOLE) for stage in stages},
        **({"kl": _HOLE} if len(stages) == 2 else {}),
        **({"unseen": [*unseen]} if unseen else {}),
    }
