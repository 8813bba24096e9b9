"""The residual stream of prompts, taken by the serving engine beside its other requests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind

from logit_processors.controls import WIRE_KEY
from logit_processors.residual import MAX_CAPTURED, Capture


class PromptStates:
    """Runs prompts through the engine and collects the residual stream at their ends.

    One caller's prompts are at work at a time, as many as the workers have room for.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    async def take(
        self, prompts: Sequence[Sequence[int]], layers: Sequence[int], last: int
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]:
        """Yield a prompt's place and its stream ``[layers, hidden]``, in the order they come.

        Args:
            prompts: token ids of each.
            layers: after which decoder layers, by number.
            last: the mean over so many of a prompt's last tokens, up to 64.

        """
        async with self._turn:
            room = asyncio.Semaphore(MAX_CAPTURED // last)

            async def one(at: int) -> tuple[int, NDArray[np.float32]]:
                async with room:
                    return at, await self._take_one(prompts[at], layers, last)

            tasks = [asyncio.create_task(one(at)) for at in range(len(prompts))]
            try:
                for done in asyncio.as_completed(tasks):
                    yield await done
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_one(
        self, prompt: Sequence[int], layers: Sequence[int], last: int
    ) -> NDArray[np.float32]:
        tag = f"capture-{uuid.uuid4().hex}"
        capture = Capture(tag, last, tuple(layers))
        params = SamplingParams(
            max_tokens=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={WIRE_KEY: {"capture": capture.to_wire()}},
        )
        # Tokens out of the prefix cache would pass no layer.
        tokens = tokens_input(list(prompt), cache_salt=tag)
        async for _ in self._engine.generate(tokens, params, tag):
            pass
        answers = await self._engine.collective_rpc("sensefield_fetch_capture", None, (tag,))
        streams: dict[int, NDArray[np.float32]] = {}
        for answer in answers:
            # A rank of a pipeline has some of the layers; an idle replica has none.
            if answer is not None:
                own: list[int] = answer["layers"]
                rows = np.frombuffer(answer["data"], np.float32).reshape(len(own), -1)
                streams |= zip(own, rows, strict=True)
        return np.stack([streams[layer] for layer in layers])
