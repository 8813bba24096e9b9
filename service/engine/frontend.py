"""Rows in the API process: numpy arrays, one row per generated token."""

from __future__ import annotations

from typing import Any, SupportsIndex, overload

from numpy.typing import NDArray
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from logit_processors.row_spec import PROMPT_KEY, TokenRow
from logit_processors.wire import WIRE_KEY

_OWN_MESSAGE = 64 << 10
"""Bytes from which an array is sent as a message of its own."""


class HandedOver(list[TokenRow]):
    """Rows that are dropped when they are read, so that a stream keeps no sent rows.

    vLLM reads the last n rows of a stream's list with a slice, once.
    """

    @overload
    def __getitem__(self, key: SupportsIndex) -> TokenRow: ...
    @overload
    def __getitem__(self, key: slice) -> list[TokenRow]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> TokenRow | list[TokenRow]:
        """Return one row, or hand over the rows of a slice and all before them."""
        rows = super().__getitem__(key)
        if isinstance(key, slice):
            self.clear()
        return rows


class RowsProcessor(LogprobsProcessor):
    """Replaces vLLM's LogprobsProcessor for requests that keep rows."""

    keeps_rows: bool
    """True if the generated tokens' logprobs are our rows, not the engine's."""
    keeps_prompt: bool
    """True if the prompt's logprobs are our rows."""

    @classmethod
    def from_new_request(cls, tokenizer: Any, request: Any) -> LogprobsProcessor:
        """Return a processor for the request; vLLM's own if the request keeps no rows."""
        stock = LogprobsProcessor.from_new_request(tokenizer, request)
        params = request.sampling_params
        wire = (params.extra_args or {}).get(WIRE_KEY)
        if not isinstance(wire, dict) or not (wire.get("rows") or wire.get(PROMPT_KEY)):
            return stock
        made = cls(**vars(stock))
        made.keeps_rows = bool(wire.get("rows"))
        made.keeps_prompt = bool(wire.get(PROMPT_KEY))
        if made.keeps_rows:
            streams = params.output_kind == RequestOutputKind.DELTA
            made.logprobs = HandedOver() if streams else []
        if made.keeps_prompt:
            made.prompt_logprobs = []
        return made

    def _update_prompt_logprobs(self, prompt_logprobs_tensors: LogprobsTensors) -> None:
        if not self.keeps_prompt:
            return super()._update_prompt_logprobs(prompt_logprobs_tensors)
        token_ids, logprobs, statistics, *_ = prompt_logprobs_tensors
        assert self.prompt_logprobs is not None
        arrays = (_own(part.numpy()) for part in (token_ids, logprobs, statistics))
        self.prompt_logprobs += map(TokenRow, *arrays)
        return None

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        if not self.keeps_rows:
            return super()._update_sample_logprobs(logprobs_lists)
        token_ids, logprobs, statistics, _ = logprobs_lists
        assert self.logprobs is not None
        for at in range(len(statistics)):
            # Copies: the received arrays are views that keep the whole message in memory.
            row = TokenRow(token_ids[at].copy(), logprobs[at].copy(), statistics[at].copy())
            self.logprobs.append(row)
        return None


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a small array: the received one is a view that keeps a message in memory.

    A large array, slow to copy, arrives as a message of its own.
    """
    return array if array.nbytes > _OWN_MESSAGE else array.copy()


def rows_processor(_stock: type[LogprobsProcessor]) -> type[RowsProcessor]:
    """Return the class that vLLM's output processor uses for logprobs."""
    return RowsProcessor
