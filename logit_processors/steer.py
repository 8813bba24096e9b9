"""Steering in logit space: add a vector's standardised token scores to the logits."""

import torch


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Shift scores over the vocabulary to mean 0 and scale them to standard deviation 1.

    The strength of steering is thereby counted in standard deviations of logits, the same
    for every vector and model.

    Args:
        scores: ``[vocab]``, W_U · u of a direction u.

    Raises:
        ValueError: the scores are constant or not finite, so they name no direction.

    """
    scores = scores.double()
    deviation = scores.std(correction=0)
    if not torch.isfinite(deviation) or deviation <= 0:
        raise ValueError("the vector gives every token the same score: it has no direction")
    return ((scores - scores.mean()) / deviation).float()


def apply_steer(
    logits: torch.Tensor,
    rows: torch.Tensor,
    directions: torch.Tensor,
    index: torch.Tensor,
    strengths: torch.Tensor,
) -> torch.Tensor:
    """Add ``strengths[i, j] * directions[index[i, j]]`` to ``logits[rows[i]]``, in place.

    Args:
        logits: ``[all_rows, vocab]`` float32.
        rows: ``[rows]`` int64, each once.
        directions: ``[vectors, vocab]`` float32, standardised.
        index: ``[rows, entries]`` int64.
        strengths: ``[rows, entries]`` float32, standard deviations; 0 where not applied.

    """
    if logits.device.type == "cpu":
        return _apply_row_by_row(logits, rows, directions, index, strengths)
    for entry in range(index.shape[1]):
        scores = directions[index[:, entry]]
        logits.index_add_(0, rows, scores.mul_(strengths[:, entry : entry + 1]))
    return logits


def _apply_row_by_row(
    logits: torch.Tensor,
    rows: torch.Tensor,
    directions: torch.Tensor,
    index: torch.Tensor,
    strengths: torch.Tensor,
) -> torch.Tensor:
    """Do the same in a third of the time on a CPU, which gains nothing by gathering first."""
    for row, vectors, weights in zip(
        rows.tolist(), index.tolist(), strengths.tolist(), strict=True
    ):
        for vector, weight in zip(vectors, weights, strict=True):
            if weight:
                logits[row].add_(directions[vector], alpha=weight)
    return logits
