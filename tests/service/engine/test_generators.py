"""Seeded requests of V1 on a CPU, with vLLM's own request state and sampler."""

from __future__ import annotations

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu_input_batch import CachedRequestState

from service.engine.generators import STEP, RewindableGenerator
from tests.seam_support import install
from tests.unit_support import CPU

VOCAB = 1000


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two seams, for one test."""
    install(monkeypatch, "CachedRequestState.__post_init__", "v1.sample.sampler.Sampler.forward")


def generator_of(seed: int) -> torch.Generator:
    """Return what vLLM makes of a request's seed."""
    return torch.Generator(CPU).manual_seed(seed)


def request_of(generator: torch.Generator | None) -> CachedRequestState:
    return CachedRequestState(
        req_id="one",
        prompt_token_ids=[1, 2, 3],
        mm_features=[],
        sampling_params=SamplingParams(),
        generator=generator,
        block_ids=([],),
        num_computed_tokens=0,
        output_token_ids=[],
    )


def metadata_of(rows: dict[int, torch.Generator], count: int) -> SamplingMetadata:
    zeros = torch.zeros(count)
    return SamplingMetadata(
        temperature=torch.ones(count),
        all_greedy=False,
        all_random=True,
        top_p=None,
        top_k=None,
        generators=rows,
        max_num_logprobs=None,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=zeros,
        presence_penalties=zeros,
        repetition_penalties=torch.ones(count),
        output_token_ids=[[] for _ in range(count)],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )


def sample(rows: dict[int, torch.Generator], count: int = 1) -> list[int]:
    """Return the tokens of a step that is equally likely to draw any."""
    output = Sampler().forward(torch.zeros(count, VOCAB), metadata_of(rows, count))
    tokens: list[int] = output.sampled_token_ids.flatten().tolist()
    return tokens


def alone(seed: int, count: int) -> list[int]:
    """Return the tokens of a seed as stock vLLM draws them."""
    generator = generator_of(seed)
    return [sample({0: generator})[0] for _ in range(count)]


def discard(generator: torch.Generator) -> None:
    """Do what vLLM does to the generator of a prompt that is not through after a step."""
    generator.set_offset(generator.get_offset() - STEP)


def test_tokens_do_not_depend_on_chunks_or_neighbours() -> None:
    seeds = (3, 4)
    expected = [alone(seed, 6) for seed in seeds]
    assert len(set(expected[0])) > 1, "this test could not fail"
    one, other = (request_of(generator_of(seed)).generator for seed in seeds)
    assert one is not None
    assert other is not None
    # The prompt of one takes three steps, in which the other already generates.
    found: list[list[int]] = [[], []]
    for _ in range(2):
        _, _, token = sample({0: one, 2: other}, 3)
        found[1].append(token)
        discard(one)
    for _ in range(4):
        token, _, beside = sample({0: one, 2: other}, 3)
        found[0].append(token)
        found[1].append(beside)
    # It is preempted, and its tokens are computed again in two parts.
    for _ in range(2):
        sample({1: one}, 2)
        discard(one)
    found[0] += [sample({1: one}, 2)[1] for _ in range(2)]
    assert found == expected


def test_a_request_without_a_seed_has_no_generator() -> None:
    assert request_of(None).generator is None


def test_one_step_can_be_taken_back() -> None:
    generator = RewindableGenerator.like(generator_of(1))
    generator.begin_step()
    discard(generator)
    with pytest.raises(ValueError, match="offset -4 is not kept"):
        discard(generator)
