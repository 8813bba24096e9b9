"""Adapters of rows that no step samples, with vLLM's own unembedding under LoRA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.config.lora import LoRAConfig
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.lora.layers import LoRAMapping
from vllm.lora.layers.logits_processor import LogitsProcessorWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from service.engine.adapters import (
    adapters_of,
    base_logits,
    unembedding_of_step,
)
from tests.seam_support import install
from tests.unit_support import CPU

VOCAB, HIDDEN, RANK, SLOTS, ROOM = 64, 16, 2, 2, 8
IDS = [11, 12]
"""Adapters in the two slots: none is empty."""
_GENERATOR = torch.Generator().manual_seed(5)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_GENERATOR)


WEIGHT, STATES = random(VOCAB, HIDDEN), random(ROOM, HIDDEN)
DOWN, UP = random(SLOTS, RANK, HIDDEN), random(SLOTS, VOCAB, RANK)
BASE = STATES @ WEIGHT.T


def expected(slots: list[int]) -> torch.Tensor:
    """Return the logits of the states, each under the adapter of a slot or, at -1, none."""
    return torch.stack(
        [
            BASE[at] + (UP[slot] @ DOWN[slot] @ STATES[at] if slot >= 0 else 0)
            for at, slot in enumerate(slots)
        ]
    )


class Model(torch.nn.Module):
    """The end of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.lm_head = ParallelLMHead(VOCAB, HIDDEN, params_dtype=torch.float32)
        self.lm_head.weight.data.copy_(WEIGHT)
        self.lm_head.quant_method.process_weights_after_loading(self.lm_head)
        self.logits_processor: torch.nn.Module = LogitsProcessor(VOCAB)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.logits_processor(self.lm_head, hidden)
        return logits


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model without LoRA."""
    file = tmp_path_factory.mktemp("group") / "init"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{file}", 0, "gloo")
        initialize_model_parallel()
        yield Model()
        destroy_model_parallel()
        destroy_distributed_environment()


@pytest.fixture
def wrapper() -> PunicaWrapperCPU:
    return PunicaWrapperCPU(ROOM, ROOM, CPU)


@pytest.fixture
def adapted(plain: Model, wrapper: PunicaWrapperCPU, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model with an adapter in each slot."""
    names = ("bgmv_expand", "bgmv_expand_slice", "sgmv_expand", "sgmv_expand_slice")
    install(monkeypatch, *(f"punica_cpu.{name}" for name in names))
    model = Model()
    layer = LogitsProcessorWithLoRA(LogitsProcessor(VOCAB), HIDDEN, torch.float32, CPU, None)
    layer.create_lora_weights(
        SLOTS, LoRAConfig(max_lora_rank=8, max_loras=SLOTS, lora_dtype=torch.float32)
    )
    for slot in range(SLOTS):
        layer.set_lora(slot, DOWN[slot], UP[slot])
    layer.set_mapping(wrapper)
    model.logits_processor = layer
    return model


def begin_step(wrapper: PunicaWrapperCPU, tokens: list[int], sampled: list[int]) -> None:
    """Name the adapters of a step's tokens and of the rows it samples, as vLLM does."""
    wrapper.update_metadata(LoRAMapping(tuple(tokens), tuple(sampled), True), [*IDS], SLOTS, VOCAB)


def test_each_row_of_a_prompt_is_read_under_the_adapter_of_its_token(
    adapted: Model, wrapper: PunicaWrapperCPU
) -> None:
    # Three requests of 3, 2 and 3 tokens: the second has no adapter.
    begin_step(wrapper, [12, 12, 12, 0, 0, 11, 11, 11], [12, 0, 11])
    slots = [1, 1, 1, -1, -1, 0, 0, 0]
    logits_of = unembedding_of_step(adapted.compute_logits, STATES)
    for part in (slice(0, 3), slice(3, 5), slice(6, 8), slice(0, 8)):
        torch.testing.assert_close(logits_of(STATES[part]), expected(slots)[part])
    # The rows that the step samples, the last of each request, are what they were.
    last = [2, 4, 7]
    torch.testing.assert_close(adapted.compute_logits(STATES[last]), expected(slots)[last])


def test_the_lens_reads_without_any_adapter(adapted: Model, wrapper: PunicaWrapperCPU) -> None:
    begin_step(wrapper, [11, 11, 12], [11, 12])
    torch.testing.assert_close(base_logits(adapted, STATES), BASE)
    # More rows than a step has tokens.
    torch.testing.assert_close(base_logits(adapted, STATES.repeat(3, 1)), BASE.repeat(3, 1))
    torch.testing.assert_close(adapted.compute_logits(STATES[:2]), expected([0, 1]))


def test_a_model_without_lora_reads_as_it_is(plain: Model) -> None:
    assert adapters_of(plain) is None
    logits_of = unembedding_of_step(plain.compute_logits, STATES)
    torch.testing.assert_close(logits_of(STATES[2:4]), BASE[2:4])
    torch.testing.assert_close(base_logits(plain, STATES), BASE)


@pytest.mark.parametrize("prefill", [True, False])
def test_rows_without_an_adapter_get_nothing_of_the_last_slot(
    adapted: Model, wrapper: PunicaWrapperCPU, prefill: bool
) -> None:
    tokens = (12, 0, 0, 11)
    wrapper.update_metadata(LoRAMapping(tokens, tokens, prefill), [*IDS], SLOTS, VOCAB)
    # A layer whose two outputs, of 40 and 24, are adapted each by its own product.
    found = BASE[:4].clone()
    parts = UP[:, None, :40], UP[:, None, 40:]
    wrapper.add_lora_linear(found, STATES[:4], (DOWN[:, None],) * 2, parts, 1.0, (40, 24))
    torch.testing.assert_close(found, expected([1, -1, -1, 0]))
    embedded = BASE[:4].clone()
    wrapper.add_lora_embedding(embedded, STATES[:4, :RANK], UP[:, None])
    assert torch.equal(embedded[1:3], BASE[1:3])
    assert not torch.equal(embedded[0], BASE[0])
