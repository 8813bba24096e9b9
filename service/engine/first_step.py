"""One step of a new engine before it serves requests."""

from __future__ import annotations

from typing import Any

from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind


async def run_first_step(engine: Any) -> None:
    """Generate one token: the residual stream is found only when the model runs."""
    params = SamplingParams(
        max_tokens=1, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
    )
    async for _ in engine.generate(tokens_input([0]), params, "sensefield-first-step"):
        pass
