"""Additive bias on single tokens and on token sets."""

import torch


def apply_bias(logits: torch.Tensor, token_ids: torch.Tensor, adds: torch.Tensor) -> torch.Tensor:
    """Add ``adds`` to the logits of ``token_ids``, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows, entries]`` int64; a token named twice gets the sum.
        adds: ``[rows, entries]`` float32, nats; 0 where an entry does not apply.

    """
    return logits.scatter_add_(1, token_ids, adds)


def apply_set_bias(
    logits: torch.Tensor, row: int, token_ids: torch.Tensor, add: float
) -> torch.Tensor:
    """Add ``add`` nats to the logits of ``token_ids`` in one row, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        row: which row.
        token_ids: ``[entries]`` int64, each once.
        add: nats.

    """
    adds = logits.new_full((1,), add).expand(len(token_ids))
    logits[row].index_add_(0, token_ids, adds)
    return logits
