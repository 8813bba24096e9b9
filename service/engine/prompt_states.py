"""Captures the residual stream of prompts in the serving engine, beside its other requests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.exceptions import RetryableRequestError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind

from logit_processors.controls.steer import SteerEntry, SteerResidual
from logit_processors.program import Program
from logit_processors.residual import CAPTURE_KEY, MAX_CAPTURED, Capture, moved
from logit_processors.row_spec import BROKEN, COLUMN, RowSpec
from logit_processors.wire import WIRE_KEY
from service.errors import SaturatedError
from service.unbroken import begin


class PromptStates:
    """Runs prompts through the engine and captures the residual stream at their ends.

    Callers take turns: one caller's prompts run at a time, as many as the workers can hold.

    Args:
        engine: vLLM's client.
        is_cached: whether the engine has a prefix cache.

    """

    def __init__(self, engine: Any, is_cached: bool = True) -> None:
        self._engine = engine
        self._is_cached = is_cached
        self._turn = asyncio.Lock()

    async def take(
        self, prompts: Sequence[Sequence[int]], layers: Sequence[int], last: int
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]:
        """Yield each prompt's index and residual stream ``[layers, hidden]``, in any order.

        Args:
            prompts: token ids of each prompt.
            layers: numbers of the decoder layers after which to capture.
            last: number of last tokens of a prompt to average over, up to 64.

        Raises:
            SaturatedError: other API processes have taken the workers' capacity.

        """

        async def one(at: int) -> tuple[int, NDArray[np.float32]]:
            return at, await self._take_one(prompts[at], layers, last)

        room = MAX_CAPTURED // last
        for first in range(0, len(prompts), room):
            async with self._turn:
                group = range(first, min(first + room, len(prompts)))
                tasks = [asyncio.create_task(one(at)) for at in group]
                try:
                    for done in asyncio.as_completed(tasks):
                        yield await done
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    def passes(self, positions: Sequence[int]) -> int:
        """Return the number of tokens that :meth:`take_each` passes through the model."""
        ends = [part[-1] + 1 for part in _parts(positions)]
        return max(ends) if self._is_cached else sum(ends)

    async def take_each(
        self,
        text: Sequence[int],
        layers: Sequence[int],
        positions: Sequence[int],
        steer: Sequence[SteerEntry],
        prompt_len: int,
    ) -> AsyncIterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield positions of a text and the residual stream, ``[layers, positions, hidden]``.

        The text runs part by part. Each part's prefix comes from the prefix cache, under a salt
        that no other request has.

        Args:
            text: token ids of a prompt and the tokens generated after it.
            layers: numbers of the decoder layers after which to capture, ascending.
            positions: positions in the text, ascending.
            steer: the entries that steer the stream.
            prompt_len: tokens of the prompt; the windows of steering count from its end.

        Raises:
            SaturatedError: other API processes have taken the workers' capacity.
            RetryableRequestError: a vector is not in the engine.

        """
        salt = f"lens-{uuid.uuid4().hex}"
        for part in _parts(positions):
            end = part[-1] + 1
            here = [moved(each, prompt_len - end) for each in steer]
            program = Program.of({SteerResidual.name: here})
            wire = {"program": program.to_wire(), "rows": RowSpec().model_dump()}
            async with self._turn:
                states = await self._take_one(
                    text[:end], layers, end - part[0], salt, wire if steer else None
                )
            yield part, states[:, [at - part[0] for at in part]]

    async def _take_one(
        self,
        prompt: Sequence[int],
        layers: Sequence[int],
        last: int,
        salt: str | None = None,
        wire: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Return the stream ``[layers, hidden]``; with a salt, the stream of each token."""
        tag = f"capture-{uuid.uuid4().hex}"
        capture = Capture(tag=tag, last=last, layers=list(layers), each=salt is not None)
        params = SamplingParams(
            max_tokens=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            logprobs=None if wire is None else 0,
            extra_args={WIRE_KEY: {CAPTURE_KEY: capture.model_dump(), **(wire or {})}},
        )
        # Tokens from the prefix cache pass no layer.
        tokens = tokens_input(list(prompt), cache_salt=salt or tag)
        try:
            # With data parallelism, collective_rpc returns the first engine's answers only.
            async for result in self._engine.generate(tokens, params, tag, data_parallel_rank=0):
                kept = result.outputs[0].logprobs or ()
                alive = [row.statistics[COLUMN["alive"]] for row in kept]
                if wire is not None and BROKEN in alive:
                    raise RetryableRequestError("a vector is not in the engine; send it again")
        finally:
            # Fetch even after a disconnect: the capture would stay on the device.
            fetching = begin(self._fetch(tag))
        streams: dict[int, NDArray[np.float32]] = {}
        for answer in await asyncio.shield(fetching):
            # A rank of a pipeline has some of the layers.
            if answer is None:
                continue
            if "failure" in answer:
                raise SaturatedError(f"{answer['failure']}; send it again")
            own: list[int] = answer["layers"]
            rows = np.frombuffer(answer["data"], np.float32)
            rows = rows.reshape(len(own), *((last, -1) if capture.each else (-1,)))
            streams |= zip(own, rows, strict=True)
        if not streams.keys() >= set(layers):
            raise SaturatedError("other captures took the room of this one; send it again")
        return np.stack([streams[layer] for layer in layers])

    async def _fetch(self, tag: str) -> list[dict[str, Any] | None]:
        answers: list[dict[str, Any] | None] = await self._engine.collective_rpc(
            "sensefield_fetch_capture", None, (tag,)
        )
        return answers


def _parts(positions: Sequence[int]) -> list[list[int]]:
    """Split ascending positions into parts that span at most one step's capture capacity."""
    parts: list[list[int]] = []
    for at in positions:
        if parts and at - parts[-1][0] < MAX_CAPTURED:
            parts[-1].append(at)
        else:
            parts.append([at])
    return parts
