"""The methods that API processes call on every worker, with ``collective_rpc``.

vLLM mixes this class into its worker. Arguments and answers are plain values: arrays
travel as bytes of float32.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from vllm.distributed import get_pp_group

from logit_processors.directions import DIRECTIONS
from logit_processors.registry import fingerprints
from service.engine.holding import held_by
from service.engine.lens import read_stream
from service.engine.neighbours import (
    embedding_cosines,
    embedding_direction,
    nearest,
    unembedding_cosines,
)
from service.engine.residual.operator import current_stream
from service.engine.residual.stream import ResidualStream
from service.engine.row_covariance import RowCovariance
from service.engine.unembedding import UnembeddingError, token_direction, unembedding_covariance
from service.engine.vector_scores import extremes, extremes_of_layers, keep, rows_of

_CACHE_KEY = secrets.token_bytes(32)


class SensefieldWorker:
    """The worker's side of steering vectors and of the residual stream."""

    model_runner: Any
    _covariance: RowCovariance | None = None

    def sensefield_cache_key(self) -> bytes:
        """Return this engine's secret, with which API processes salt its prefix cache."""
        return _CACHE_KEY

    def sensefield_held(self) -> dict[str, int]:
        """Return the number of resources held for running requests, by kind."""
        return held_by(self.model_runner)

    def sensefield_put_vectors(
        self, vectors: list[tuple[str, bytes, bool]], holder: str
    ) -> list[str | None] | None:
        """Compute and keep the token scores of vectors, where logits are computed.

        Args:
            vectors: for each the SHA-256 of its content, ``[hidden]`` float32 and True if it is
                of the residual stream.
            holder: id of the API process; the vectors stay until it drops them.

        Returns:
            The result of :func:`service.engine.vector_scores.keep`; None on a rank that computes
            no logits.

        """
        if not get_pp_group().is_last_rank:
            return None
        width = self.model_runner.model_config.get_vocab_size()
        return keep(self.model_runner.get_model(), width, vectors, holder)

    def sensefield_drop_vector(self, content: str, holder: str) -> None:
        """Drop a vector unless another API process holds it; running requests keep it."""
        DIRECTIONS.drop(content, holder)

    def sensefield_nearest(
        self, content: str, vocab_size: int, k: int
    ) -> dict[str, list[Any]] | None:
        """Return the k tokens that a vector raises and lowers most, with their scores."""
        if content not in DIRECTIONS:
            return None
        return extremes(DIRECTIONS.scores(content)[:vocab_size], k)

    def sensefield_nearest_layers(
        self, data: bytes, count: int, vocab_size: int, k: int
    ) -> list[dict[str, Any]] | None:
        """Return the k tokens that each layer of a residual-stream vector raises and lowers most.

        None on a rank that computes no logits; no tokens for a layer without an effect.

        Args:
            data: ``[count, hidden]`` float32.
            count: number of layers.
            vocab_size: size of the vocabulary; a model may have more logits.
            k: number of tokens per side.

        """
        if not get_pp_group().is_last_rank:
            return None
        return extremes_of_layers(
            self.model_runner.get_model(), rows_of(data, count), vocab_size, k
        )

    def sensefield_token_neighbours(
        self, token_ids: list[int], vocab_size: int, k: int
    ) -> dict[str, dict[str, list[Any]]]:
        """Return the k tokens nearest to some, by cosine, in embedding and unembedding space.

        Each rank of a pipeline returns the spaces that it has.
        """
        model = self.model_runner.get_model()
        found = {}
        if get_pp_group().is_first_rank:
            cosines = embedding_cosines(model, token_ids, vocab_size)
            found["embedding"] = nearest(cosines, token_ids, k)
        if get_pp_group().is_last_rank:
            cosines = unembedding_cosines(model, token_ids)[:vocab_size]
            found["unembedding"] = nearest(cosines, token_ids, k)
        return found

    def sensefield_put_residual(
        self, content: str, data: bytes, layers: list[int], holder: str
    ) -> bool:
        """Keep a vector for steering the residual stream.

        Args:
            content: SHA-256 of the vector's content.
            data: ``[len(layers), hidden]`` float32.
            layers: numbers of the vector's layers.
            holder: id of the API process; the vector stays until it drops it.

        Returns:
            False if the bank is full.

        Raises:
            ValueError: the model cannot be steered, does not have a layer or has another hidden
                size, or values overflow its dtype.

        """
        stream = self._stream()
        support = stream.support
        if support.reason is not None:
            raise ValueError(f"the residual stream cannot be steered: {support.reason}")
        if (
            not layers
            or len(set(layers)) < len(layers)
            or not set(layers) <= set(range(support.layers))
        ):
            raise ValueError(f"layers {layers}; the model has 0 to {support.layers - 1}")
        values = torch.from_numpy(np.frombuffer(data, np.float32).copy())
        if len(values) % len(layers):
            raise ValueError(f"{len(values)} numbers are no {len(layers)} layers")
        return stream.bank.put(content, values.reshape(len(layers), -1), layers, holder)

    def sensefield_drop_residual(self, content: str, holder: str) -> None:
        """Drop a vector unless another API process holds it; running requests keep it."""
        self._stream().bank.drop(content, holder)

    def sensefield_controls(self) -> dict[str, str]:
        """Return a hash of each kind of control that this worker knows."""
        return fingerprints()

    def sensefield_describe_residual(self) -> dict[str, Any]:
        """Return the support for steering the model's residual stream."""
        stream = self._stream()
        capacity, _, hidden_size = stream.bank.table.shape
        return {
            "unsupported": stream.support.reason,
            "layers": stream.support.layers,
            "hidden_size": hidden_size,
            "dtype": str(stream.bank.table.dtype).removeprefix("torch."),
            "capacity": capacity,
            "resident": len(stream.bank),
        }

    def sensefield_fetch_capture(self, tag: str) -> dict[str, Any] | None:
        """Return and drop the residual stream captured under a tag.

        Returns:
            ``{"layers": numbers, "data": [len(layers), hidden] float32 bytes}``, the layers
            that this worker runs, or ``{"failure": why}``; None if nothing was captured.

        """
        try:
            return self._stream().fetch(tag)
        except ValueError as error:
            return {"failure": str(error)}

    def sensefield_read_stream(
        self, data: bytes, following: list[int], k: int
    ) -> dict[str, bytes] | None:
        """Return what :func:`service.engine.lens.read_stream` reads, as bytes.

        None on a rank that computes no logits; a ``failure`` if the model's final norm is not
        found.

        Args:
            data: ``[layers, len(following), hidden]`` float32; the last layer is the last.
            following: the token after each position, below 0 for none.
            k: number of most likely tokens to return.

        """
        if not get_pp_group().is_last_rank:
            return None
        hidden_size = self._stream().bank.table.shape[2]
        states = torch.from_numpy(np.frombuffer(data, np.float32).copy())
        device, model = self.model_runner.device, self.model_runner.get_model()
        try:
            read = read_stream(
                model,
                states.reshape(-1, len(following), hidden_size).to(device),
                torch.tensor(following, device=device),
                k,
                self.model_runner.model_config.dtype,
            )
        except UnembeddingError as error:
            return {"failure": str(error).encode()}
        if read is None:
            return None
        return {name: values.cpu().numpy().tobytes() for name, values in read.items()}

    def _stream(self) -> ResidualStream:
        stream = current_stream()
        assert stream is not None, "the model is loaded"
        return stream

    def sensefield_prepare_directions(self) -> bool:
        """Prepare directions of tokens, one part per call; return True once all parts are done."""
        if not get_pp_group().is_last_rank:
            return True
        if self._covariance is None:
            self._covariance = unembedding_covariance(self.model_runner.get_model())
        return self._covariance.advance()

    def sensefield_token_direction(self, token_ids: list[int]) -> bytes | None:
        """Return the direction of tokens in the unembedding, ``[hidden]`` float32 bytes.

        None on a rank that computes no logits. The preparation must be done.
        """
        if not get_pp_group().is_last_rank:
            return None
        assert self._covariance is not None, "directions are prepared"
        model = self.model_runner.get_model()
        return token_direction(model, token_ids, self._covariance).numpy().tobytes()

    def sensefield_embedding_direction(self, token_ids: list[int], vocab_size: int) -> bytes | None:
        """Return the direction of tokens in the embedding, ``[hidden]`` float32 bytes.

        None on a rank that embeds nothing.
        """
        if not get_pp_group().is_first_rank:
            return None
        direction = embedding_direction(self.model_runner.get_model(), token_ids, vocab_size)
        return direction.cpu().numpy().tobytes()
