"""How the unembedding reads the residual stream, on vLLM's own GPT-2 of four tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, LayerNorm, RMSNorm
from vllm.model_executor.models import cohere2_moe, commandr
from vllm.model_executor.models.nemotron import NemotronLayerNorm1P

from logit_processors.standardise import standardise
from service.engine.final_norm import normed, read_directions
from service.engine.unembedding import UnembeddingError, token_scores

HIDDEN = 3
GAIN = (1.0, 2.0, 0.5)
STEP = (1.0, 2.0, 6.0)
NORMS: dict[str, Callable[[], Any]] = {
    "vLLM's LayerNorm": partial(LayerNorm, HIDDEN),
    "one without weights": partial(LayerNorm, HIDDEN, elementwise_affine=False),
    "torch's LayerNorm": partial(torch.nn.LayerNorm, HIDDEN),
    "Cohere's LayerNorm": partial(commandr.LayerNorm, HIDDEN),
    "Nemotron's LayerNorm": partial(NemotronLayerNorm1P, HIDDEN),
    "OLMo's LayerNorm": partial(OlmoLayerNorm, HIDDEN),
    "vLLM's RMSNorm": partial(RMSNorm, HIDDEN),
    "Gemma's RMSNorm": partial(GemmaRMSNorm, HIDDEN),
    "torch's RMSNorm": partial(torch.nn.RMSNorm, HIDDEN),
    "Cohere's RMSNorm": partial(commandr.RMSNorm, HIDDEN),
    "Cohere 2's RMSNorm": partial(cohere2_moe.RMSNorm, HIDDEN),
}


def test_a_layer_norm_reads_a_vector_without_its_mean(gpt2: Any) -> None:
    """By hand: v - mean v = (-2, -1, 3), times g = (-2, -2, 1.5)."""
    gpt2.transformer.ln_f.weight.copy_(torch.tensor(GAIN))
    gpt2.transformer.ln_f.bias.copy_(torch.tensor([5.0, 6.0, 7.0]))
    read = read_directions(gpt2, torch.tensor([STEP]))
    assert read.tolist() == [[-2.0, -2.0, 1.5]]
    scores = token_scores(gpt2, read)
    assert scores.tolist() == [[-2.0, -2.0, 1.5, -2.5]]
    # Of mean -1.25 and variance (0.75² + 0.75² + 2.75² + 1.25²) / 4 = 2.5625.
    wanted = np.array([-0.75, -0.75, 2.75, -1.25]) / np.sqrt(2.5625)
    np.testing.assert_allclose(standardise(scores[0]).numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", NORMS)
def test_a_step_is_read_as_the_norm_itself_turns_it(
    kind: str, gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A norm is linear but for the number it divides by: norm(v) - norm(0) has v's direction."""
    norm = NORMS[kind]()
    monkeypatch.setitem(gpt2.transformer._modules, "ln_f", norm)
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        parameter.copy_(torch.rand(HIDDEN, generator=generator))
    with torch.compiler.set_stance("force_eager"):
        turned = normed(gpt2, torch.tensor([STEP, [0.0] * HIDDEN]))
    read = read_directions(gpt2, torch.tensor([STEP]))[0]
    moved = turned[0] - turned[1]
    np.testing.assert_allclose(read / read.norm(), moved / moved.norm(), atol=1e-6)


@pytest.mark.parametrize("everywhere", [3.0, 0.1, -1e-30])
def test_a_layer_norm_reads_nothing_in_a_vector_that_is_the_same_everywhere(
    everywhere: float, gpt2: Any
) -> None:
    read = read_directions(gpt2, torch.full((1, HIDDEN), everywhere))
    assert not read.any()
    with pytest.raises(ValueError, match="no direction"):
        standardise(token_scores(gpt2, read)[0])


def test_a_norm_of_an_unknown_kind_is_refused_by_its_name(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpt2.transformer._modules, "ln_f", torch.nn.Identity())
    with pytest.raises(UnembeddingError, match=r"Identity, is neither a known RMSNorm"):
        read_directions(gpt2, torch.tensor([STEP]))
