"""The samplers that return kept rows: V1's, V2's, and V2's verifier of drafted tokens.

vLLM computes logprobs for the whole batch at the widest request's k, sorted and ranked by
a kernel that compiles on first use. Its samplers have no extension point for rows of our
own, so their entry points are wrapped, each by a function here (see ``seams``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from logit_processors.places import Layout
from logit_processors.processor import ControlProcessor
from service.engine.capture import Kept, keep_rows
from service.engine.generators import begin_step


def sampled_v1(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V1's ``Sampler.forward`` with kept rows instead of its own logprobs."""

    def forward(
        self: Any,
        logits: torch.Tensor,
        sampling_metadata: Any,
        predict_bonus_token: bool = False,
        logprobs_mode_override: Any = None,
    ) -> Any:
        begin_step(sampling_metadata.generators.values())
        processor = _processor_of(sampling_metadata.logitsprocs.non_argmax_invariant)
        wanted = processor.wanted_rows(len(logits)) if processor is not None else {}
        if processor is None or not wanted:
            return stock(
                self, logits, sampling_metadata, predict_bonus_token, logprobs_mode_override
            )
        kept = Kept.of(wanted, Layout(logits.device))
        base = raw_rows(logits, kept)
        quiet = replace(sampling_metadata, max_num_logprobs=None, logprob_token_ids=None)
        output = stock(self, logits, quiet, predict_bonus_token, logprobs_mode_override)
        sampled = output.sampled_token_ids.squeeze(-1).long()
        output.logprobs_tensors = keep_rows(processor, kept, base, sampled)
        return output

    return forward


def raw_rows(logits: torch.Tensor, kept: Kept) -> torch.Tensor:
    """Return the measured rows of ``[rows, vocab]``, float32, before V1 samples.

    V1 changes float32 logits in place; it copies logits of other dtypes.
    """
    is_copied = logits.dtype != torch.float32
    if is_copied and kept.is_whole(len(logits), len(logits)):
        return logits.float()
    return logits[kept.measured.rows].float()


def added_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V2's ``Sampler.add_request``, which releases the resources of ended requests first."""

    def add_request(self: Any, req_idx: int, sampling_params: Any) -> None:
        # The new request may need the resources of ended ones.
        end_requests(self)
        stock(self, req_idx, sampling_params)

    return add_request


def without_logprobs_dims(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V2's ``Sampler.get_logprobs_dims``, which requests no logprobs if rows are kept."""

    def get_logprobs_dims(self: Any, idx_mapping_np: Any, include_token_ids: bool = True) -> Any:
        if _processor_of(self.logits_processors) is not None:
            return None
        return stock(self, idx_mapping_np, include_token_ids)

    return get_logprobs_dims


def sampled_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V2's ``Sampler.__call__`` with kept rows instead of its own logprobs."""

    def call(self: Any, logits: torch.Tensor, input_batch: Any) -> Any:
        return sample(self, logits, input_batch, lambda: stock(self, logits, input_batch))

    return call


def without_verified_logprobs(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return the verifier's ``_get_logprobs_tensors``, which computes none if rows are kept."""

    def get_logprobs_tensors(self: Any, *arguments: Any, **options: Any) -> Any:
        if _processor_of(self.sampler.logits_processors) is not None:
            return None
        return stock(self, *arguments, **options)

    return get_logprobs_tensors


def verified(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return the verifier's ``__call__`` with kept rows instead of its logprobs."""

    def verify(
        self: Any,
        logits: torch.Tensor,
        input_batch: Any,
        draft_logits: torch.Tensor | None = None,
        invalid_drafts: torch.Tensor | None = None,
    ) -> Any:
        return sample(
            self.sampler,
            logits,
            input_batch,
            lambda: stock(self, logits, input_batch, draft_logits, invalid_drafts),
        )

    return verify


def end_requests(sampler: Any) -> None:
    """Release the resources of V2's ended requests; vLLM does not notify processors."""
    processor: Any = _processor_of(sampler.logits_processors)
    if processor is not None:
        processor.end_all_but(sampler.req_states.index_to_req_id)


def sample(sampler: Any, logits: torch.Tensor, input_batch: Any, stock: Callable[[], Any]) -> Any:
    """Sample as V2 does, with the rows that the batch's requests keep.

    Args:
        sampler: holds the processors.
        logits: ``[rows, vocab]``, the step's raw logits.
        input_batch: the step's layout.
        stock: vLLM's function that samples or verifies the logits.

    """
    processor: Any = _processor_of(sampler.logits_processors)
    if processor is None:
        return stock()
    processor.end_all_but(sampler.req_states.index_to_req_id)
    processor.look_at(input_batch)
    wanted = processor.wanted_rows(input_batch.num_reqs)
    if not wanted:
        return stock()
    drafts = input_batch.num_draft_tokens_per_req
    kept = Kept.of(wanted, Layout(logits.device, drafts, input_batch.cu_num_logits))
    # The samplers copy logits before they change them, so that the raw rows stay unchanged.
    whole = kept.is_whole(input_batch.num_reqs, len(logits))
    base = logits if whole else logits[kept.measured.rows]
    output = stock()
    sampled = output.sampled_token_ids.squeeze(-1)
    if drafts is not None:
        sampled = drawn_tokens(output, input_batch)
    output.logprobs_tensors = keep_rows(processor, kept, base, sampled.long())
    return output


def drawn_tokens(output: Any, batch: Any) -> torch.Tensor:
    """Return each row's sampled token in a step with drafts, 0 for a row without one.

    Args:
        output: ``sampled_token_ids`` ``[batch, drafts + 1]``, of which each request has the
            first ``num_sampled`` ``[batch]``; the rest are no tokens.
        batch: ``cu_num_logits`` ``[batch + 1]`` int32, where each request's rows begin, and
            ``expanded_local_pos`` ``[rows]`` int32, each row's place among its request's.

    Returns:
        ``[rows]`` int64.

    """
    places = batch.expanded_local_pos
    rows = torch.arange(len(places), dtype=torch.int32, device=places.device)
    requests = torch.searchsorted(batch.cu_num_logits[1:], rows, right=True)
    tokens = output.sampled_token_ids[requests, places.long()]
    return tokens.masked_fill(places >= output.num_sampled[requests], 0)


def _processor_of(processors: Sequence[Any]) -> ControlProcessor | None:
    return next((p for p in processors if isinstance(p, ControlProcessor)), None)
