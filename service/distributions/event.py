"""The ``distribution`` object of one token, in most events of a stream."""

from __future__ import annotations

import sys
from struct import pack

import numpy as np
from pybase64 import b64encode

from logit_processors.row_spec import COLUMN, DENSE, RowSpec, TokenRow
from service.distributions.stages import stages_of
from service.schemas.distribution import DistributionRequest


class SingleRowEncoder:
    """Encodes one row that is sent unchanged, as most streamed rows are.

    Such objects differ only in the data of their arrays.
    """

    def __init__(self, request: DistributionRequest, spec: RowSpec) -> None:
        self.text = b""
        """The object, with a ``%b`` for the data of each array."""
        stages = stages_of(request, spec)
        self._stages = [(spec.stages.index(s), _value_bytes(f"{s}_entropy")) for s in stages]
        self._logprobs = [_value_bytes(f"{stage}_logprob") for stage in stages]
        self._ranks = [COLUMN[f"{stage}_rank"] for stage in stages]
        self._kl = [_value_bytes("kl")] if len(stages) == 2 else []
        self._is_dense = request.kept == DENSE
        self._kept = None if self._is_dense else request.kept
        self._dtype = np.dtype(request.dtype)

    @staticmethod
    def can_write(request: DistributionRequest, spec: RowSpec) -> bool:
        """Say whether rows are sent in base64, neither sorted nor ragged."""
        as_kept = request.top_p is None and (spec.top_k == DENSE) == (request.kept == DENSE)
        return as_kept and request.encoding == "base64" and sys.byteorder == "little"

    def write(self, token_id: int, row: TokenRow) -> bytes:
        """Return the object."""
        return self.text % (*map(b64encode, self._data(token_id, row)),)

    def _data(self, token_id: int, row: TokenRow) -> list[bytes | memoryview]:
        """Return the data of all arrays, in the order of the outline."""
        values = row.statistics.tobytes()
        data: list[bytes | memoryview] = [pack("<i", token_id)]
        data += [values[at] for at in self._logprobs]
        data += [pack("<i", int(row.statistics[column])) for column in self._ranks]
        for stage, entropy in self._stages:
            if not self._is_dense:
                data.append(row.token_ids[stage, : self._kept].data)
            logprobs = row.logprobs[stage, : self._kept]
            data += logprobs.astype(self._dtype, copy=False).data, values[entropy]
        data += [values[at] for at in self._kl]
        return data


def _value_bytes(statistic: str) -> slice:
    """Return the slice of a statistic's four bytes."""
    return slice(4 * COLUMN[statistic], 4 * COLUMN[statistic] + 4)
