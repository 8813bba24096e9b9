"""LoRA adapters of rows that the unembedding reads beside the sampled rows of a step.

vLLM sets the adapters of a step's sampled rows, one per row. For other rows, a prompt's or the
lens's, LoRA's unembedding would apply these adapters to the wrong rows, or fail on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from vllm.lora.layers.logits_processor import LogitsProcessorWithLoRA

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
"""``[rows, hidden]`` -> ``[rows, vocab]``."""

NONE = -1
"""Slot of a row without an adapter."""


class RowAdapters:
    """Sets the adapters of the rows that LoRA's unembedding reads, by their slots.

    ``wrapper`` is vLLM's ``PunicaWrapperBase`` of the language model.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper

    @property
    def most_rows(self) -> int:
        """Return the number of rows that it can read at once."""
        return len(self._wrapper._sampler_indices)

    def of_tokens(self, first: int, count: int) -> torch.Tensor:
        """Return the slots of some of the step's tokens, ``[count]`` int64."""
        slots: torch.Tensor = self._wrapper.token_lora_indices[first : first + count]
        return slots

    @contextmanager
    def named(self, slots: torch.Tensor) -> Iterator[None]:
        """Set the slots ``[rows]`` int64 of the rows that the unembedding reads in the context."""
        # Restored afterwards: vLLM sets the next step's slots only if they differ from this step's.
        before = self._wrapper.sampler_indices.clone()
        self._name(slots)
        try:
            yield
        finally:
            self._name(before)

    def _name(self, slots: torch.Tensor) -> None:
        self._wrapper._sampler_indices[: len(slots)].copy_(slots)
        self._wrapper.indices_len[1] = len(slots)
        kernels = getattr(self._wrapper, "prompt_mapping_meta", None)
        if kernels is not None:
            kernels.prepare_tensors(self._wrapper.sampler_indices)


_found: WeakKeyDictionary[torch.nn.Module, RowAdapters | None] = WeakKeyDictionary()


def adapters_of(model: torch.nn.Module) -> RowAdapters | None:
    """Return the adapters of a model's unembedding; None if it supports none."""
    if model not in _found:
        layers = (each for each in model.modules() if isinstance(each, LogitsProcessorWithLoRA))
        layer = next(layers, None)
        _found[model] = None if layer is None else RowAdapters(layer.punica_wrapper)
    return _found[model]


def unembedding_of_step(compute_logits: Any, hidden: torch.Tensor) -> LogitsOf:
    """Return the unembedding of parts of a step's hidden states, each row under its adapter.

    Args:
        compute_logits: the method of vLLM's model.
        hidden: ``[tokens, hidden]``, the step's states; the returned function reads slices of it.

    """
    compute: LogitsOf = compute_logits
    adapters = adapters_of(compute_logits.__self__)
    if adapters is None:
        return compute

    def logits_of(rows: torch.Tensor) -> torch.Tensor:
        first = (rows.storage_offset() - hidden.storage_offset()) // hidden.stride(0)
        with adapters.named(adapters.of_tokens(first, len(rows))):
            return compute(rows)

    return logits_of


def base_logits(model: Any, rows: torch.Tensor) -> torch.Tensor | None:
    """Read rows without any adapter: ``[rows, hidden]`` -> ``[rows, vocab]``.

    None on a rank that has no logits.
    """
    adapters = adapters_of(model)
    if adapters is None:
        logits: torch.Tensor | None = model.compute_logits(rows)
        return logits
    parts = []
    for part in rows.split(adapters.most_rows):
        slots = torch.full((len(part),), NONE, device=part.device)
        with adapters.named(slots):
            parts.append(model.compute_logits(part))
    return None if parts[0] is None else torch.cat(parts)


def spared_rows(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return LoRA's expansion on a CPU, corrected to add nothing to rows without an adapter.

    Their slot is -1, with which vLLM indexes the weights of the last slot. That slot holds an
    adapter once all slots are taken. ``lora_indices_tensor`` holds the slot of each row.
    """

    def of_rows(_weights: Any, _output: Any, slots: torch.Tensor, *_: Any) -> torch.Tensor:
        return slots

    return _spared(stock, of_rows)


def spared_runs(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Correct LoRA's expansion like :func:`spared_rows`, with one slot for each run of rows."""

    def of_runs(
        _weights: Any, _output: Any, _starts: Any, lengths: Any, slots: torch.Tensor, *_: Any
    ) -> torch.Tensor:
        return torch.repeat_interleave(slots, lengths)

    return _spared(stock, of_runs)


def _spared(stock: Callable[..., Any], slots_of: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def expand(inputs: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        without = slots_of(*args) < 0
        stock(inputs.masked_fill(without.unsqueeze(1), 0), *args, **kwargs)

    return expand
