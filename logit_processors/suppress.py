"""Suppression: probability exactly 0, whatever else was added."""

import torch

_SUPPRESSED = float("-inf")
_UNTOUCHED = float("inf")
_FIRST = 1024


def apply_suppress(
    logits: torch.Tensor, token_ids: torch.Tensor, active: torch.Tensor
) -> torch.Tensor:
    """Set the logits of the active ``token_ids`` to -inf, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows, entries]`` int64.
        active: ``[rows, entries]`` bool; an inactive entry touches nothing.

    """
    # The minimum with +inf leaves a logit as it is, so padding needs no dummy token.
    ceiling = torch.full_like(token_ids, _UNTOUCHED, dtype=logits.dtype)
    ceiling.masked_fill_(active, _SUPPRESSED)
    return logits.scatter_reduce_(1, token_ids, ceiling, "amin")


def apply_set_suppress(logits: torch.Tensor, row: int, token_ids: torch.Tensor) -> torch.Tensor:
    """Set the logits of ``token_ids`` (``[entries]`` int64) in one row to -inf, in place."""
    logits[row].index_fill_(0, token_ids, _SUPPRESSED)
    return logits


def exhausted(logits: torch.Tensor) -> torch.Tensor:
    """Say which rows have no token left: ``[rows, vocab]`` -> ``[rows]`` bool."""
    if logits.device.type != "cpu":
        return logits.amax(dim=-1) == _SUPPRESSED
    # Nearly every row has one among its first; looking there takes a fiftieth of the time.
    none_left = logits[:, :_FIRST].amax(dim=-1) == _SUPPRESSED
    doubtful = none_left.nonzero().squeeze(1)
    if len(doubtful):
        none_left[doubtful] = logits[doubtful].amax(dim=-1) == _SUPPRESSED
    return none_left
