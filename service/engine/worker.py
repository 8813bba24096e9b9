"""What the API process asks of every worker, reached by ``collective_rpc``.

vLLM mixes this class into its worker. Arguments and answers are plain values: arrays
travel as bytes of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from logit_processors.directions import DIRECTIONS
from logit_processors.steer import standardise
from service.engine.unembedding import final_norm_gain, token_direction, token_scores


class SensefieldWorker:
    """The worker's side of steering vectors."""

    model_runner: Any

    def sensefield_put_vector(self, content: str, data: bytes, residual: bool) -> None:
        """Compute and keep the token scores of a vector.

        Args:
            content: SHA-256 of the vector's content.
            data: ``[hidden]`` float32, where the unembedding reads it or, if ``residual``,
                in the residual stream before the final norm.
            residual: as said.

        Raises:
            ValueError: the vector gives every token the same score.

        """
        model = self.model_runner.get_model()
        direction = torch.from_numpy(np.frombuffer(data, np.float32).copy())
        if residual:
            gain = final_norm_gain(model)
            direction = direction.to(gain.device) * gain
        scores = standardise(token_scores(model, direction))
        DIRECTIONS.put(content, _pad(scores, self.model_runner.model_config.get_vocab_size()))

    def sensefield_drop_vector(self, content: str) -> None:
        """Forget a vector; running requests keep it."""
        DIRECTIONS.drop(content)

    def sensefield_nearest(self, content: str, k: int) -> dict[str, list[Any]] | None:
        """Return the k tokens that a vector raises and lowers most, with their scores."""
        if content not in DIRECTIONS:
            return None
        scores = DIRECTIONS.scores(content)
        raised, lowered = scores.topk(k), (-scores).topk(k)
        return {
            "raised_ids": raised.indices.tolist(),
            "raised": raised.values.tolist(),
            "lowered_ids": lowered.indices.tolist(),
            "lowered": (-lowered.values).tolist(),
        }

    def sensefield_token_direction(self, token_ids: list[int]) -> bytes:
        """Return the direction of tokens in the unembedding, ``[hidden]`` float32 bytes."""
        direction = token_direction(self.model_runner.get_model(), token_ids)
        return direction.cpu().numpy().tobytes()


def _pad(scores: torch.Tensor, width: int) -> torch.Tensor:
    """Give the logits beyond the vocabulary a score of 0: ``[vocab]`` -> ``[width]``."""
    return torch.nn.functional.pad(scores, (0, width - len(scores)))
