"""The API process's end of the rows: numpy kept as numpy, a row per generated token."""

from __future__ import annotations

from typing import Any, SupportsIndex, overload

from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import output_processor
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists

from logit_processors.controls import WIRE_KEY
from logit_processors.row_spec import TokenRow


class HandedOver(list[TokenRow]):
    """Rows that leave when they are read, so that a stream keeps none it has sent.

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
    """Stands in for vLLM's LogprobsProcessor on requests that asked for rows."""

    @classmethod
    def from_new_request(cls, tokenizer: Any, request: Any) -> LogprobsProcessor:
        """Return one for the request, or vLLM's own for a request that keeps no rows."""
        params = request.sampling_params
        wire = (params.extra_args or {}).get(WIRE_KEY)
        if not isinstance(wire, dict) or not wire.get("rows"):
            return LogprobsProcessor.from_new_request(tokenizer, request)
        streams = params.output_kind == RequestOutputKind.DELTA
        return cls(
            tokenizer=tokenizer,
            logprobs=HandedOver() if streams else [],
            prompt_logprobs=None if params.prompt_logprobs is None else [None],
            cumulative_logprob=0.0,
            num_logprobs=params.num_logprobs,
            num_prompt_logprobs=params.prompt_logprobs,
        )

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        token_ids, logprobs, statistics, _ = logprobs_lists
        assert self.logprobs is not None
        for at in range(len(statistics)):
            # Copies: what arrived are views that keep the whole message in memory.
            row = TokenRow(token_ids[at].copy(), logprobs[at].copy(), statistics[at].copy())
            self.logprobs.append(row)


def install() -> None:
    """Have vLLM's output processor keep rows as rows."""
    output_processor.LogprobsProcessor = RowsProcessor
