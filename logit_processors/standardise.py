"""Token scores of a direction, in standard deviations of logits."""

import torch


def standardise(scores: torch.Tensor) -> torch.Tensor:
    """Shift scores over the vocabulary to mean 0 and scale them to standard deviation 1.

    So the strength of steering is measured in standard deviations of logits, for every vector and
    model.

    Args:
        scores: ``[vocab]``, W_U · u of a direction u.

    Raises:
        ValueError: the scores are constant or not finite.

    """
    scores = scores.double()
    deviation = scores.std(correction=0)
    if not torch.isfinite(deviation) or deviation <= 0:
        raise ValueError("the vector gives every token the same score: it has no direction")
    return ((scores - scores.mean()) / deviation).float()
