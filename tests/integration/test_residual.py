"""Residual steering and capture on real engines, against Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from logit_processors.residual import Capture, ResidualSteer, Span
from service.embedded_model import embedded_model_dir
from tests.integration.offline import run_offline, vector
from tests.integration.servers import V2_ENVIRONMENT

LAYERS = list(range(30))
CARRIED = {"everywhere": LAYERS, "middle": list(range(8, 20)), "one": [14]}
PROGRAMS: list[tuple[ResidualSteer, ...]] = [
    (),
    (ResidualSteer("one", 60.0),),
    (),
    (ResidualSteer("everywhere", -1.5), ResidualSteer("middle", 4.0, layers=(8, 9, 19))),
    (ResidualSteer("one", 60.0, when=Span(-6, 3)), ResidualSteer("middle", -3.0, when=Span(5))),
    (ResidualSteer("one", 60.0, when=Span(None, -8)),),
    (ResidualSteer("everywhere", 0.0),),
    (ResidualSteer("middle", 9.0), ResidualSteer("middle", -9.0)),
]
"""One of each request in a batch; the last two change nothing."""
PLAIN = [0, 2, 6, 7]


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Token ids of as many prompts as there are programs, of different lengths."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    text = "The history of the city begins with a small group of people who settled near the river"
    return [tokenizer.encode(f"{text}, {'and built houses, ' * n}") for n in range(len(PROGRAMS))]


class Reference:
    """The model in transformers with vectors added by forward hooks."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(
        self, tokens: Sequence[int], prompt_len: int, steer: Sequence[ResidualSteer] = ()
    ) -> tuple[torch.Tensor, NDArray[np.float32]]:
        """Return log-probabilities ``[tokens, vocab]`` and streams ``[layers, tokens, hidden]``."""
        positions = torch.arange(len(tokens)) + 1 - prompt_len
        streams: list[NDArray[np.float32]] = []

        def hook(layer: int) -> Any:
            def add(_module: Any, _arguments: Any, output: Any) -> torch.Tensor:
                stream: torch.Tensor = output
                for entry in steer:
                    start, stop = entry.when.bounds
                    named = CARRIED[entry.vector] if entry.layers is None else entry.layers
                    if layer in named:
                        inside = (positions >= start) & (positions < stop)
                        value = torch.from_numpy(vector(entry.vector, [layer])[0])
                        stream = stream + inside[None, :, None] * entry.strength * value
                streams.append(stream[0].numpy())
                return stream

            return add

        handles = [
            layer.register_forward_hook(hook(number))
            for number, layer in enumerate(self._model.model.layers)
        ]
        with torch.no_grad():
            logits = self._model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        for handle in handles:
            handle.remove()
        return logits.log_softmax(-1), np.stack(streams)

    def check(
        self, answer: Mapping[str, Any], prompt: Sequence[int], steer: Sequence[ResidualSteer]
    ) -> None:
        """Compare an engine's greedy tokens and their log-probabilities."""
        tokens = answer["tokens"]
        logprobs, _ = self.run([*prompt, *tokens], len(prompt), steer)
        chosen = logprobs[len(prompt) - 1 : -1]
        assert chosen.argmax(-1).tolist() == tokens
        wanted = chosen.max(-1).values.tolist()
        np.testing.assert_allclose(answer["logprobs"], wanted, atol=2e-3)
        assert all(answer["alive"])


@pytest.fixture(scope="module")
def steered(reference: torch.nn.Module) -> Reference:
    return Reference(reference)


def requests(
    prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[ResidualSteer]], tokens: int
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": list(prompt),
            "tokens": tokens,
            "wire": {"residual": [entry.to_wire() for entry in program]},
        }
        for prompt, program in zip(prompts, programs, strict=True)
    ]


PUT: list[list[Any]] = [["put", name, layers] for name, layers in CARRIED.items()]
CAPTURES = [Capture("last", 1), Capture("few", 4, layers=(0, 13, 29)), Capture("idle", 64)]


@pytest.fixture(scope="module")
def eager(prompts: list[list[int]]) -> list[Any]:
    """Answers of an eager engine on V1: a plain batch, a mixed one, captures, a broken one."""
    absent = (ResidualSteer("absent", 1.0),)
    capturing = [
        {"prompt": prompts[1], "tokens": 2, "wire": {"capture": capture.to_wire()}}
        for capture in CAPTURES[:2]
    ]
    calls: list[list[Any]] = [
        ["rpc", "sensefield_describe_residual"],
        *PUT,
        ["generate", requests(prompts, [()] * len(prompts), 24)],
        ["generate", requests(prompts, PROGRAMS, 24)],
        ["generate", [*capturing, *requests(prompts[1:2], PROGRAMS[1:2], 2)]],
        ["rpc", "sensefield_fetch_capture", "last"],
        ["rpc", "sensefield_fetch_capture", "few"],
        ["rpc", "sensefield_fetch_capture", "few"],
        ["generate", requests(prompts[:3], [PROGRAMS[1], absent, ()], 2)],
    ]
    return run_offline(calls, {})


def test_the_engine_describes_what_it_can_steer(eager: list[Any]) -> None:
    assert eager[0] == [
        {
            "unsupported": None,
            "layers": 30,
            "hidden_size": 576,
            "dtype": "float32",
            "capacity": 512,
            "resident": 0,
        }
    ]
    assert eager[1:4] == [[True]] * 3


def test_steered_rows_equal_transformers(
    eager: list[Any], prompts: list[list[int]], steered: Reference
) -> None:
    for answer, prompt, program in zip(eager[5], prompts, PROGRAMS, strict=True):
        steered.check(answer, prompt, program)


def test_unsteered_rows_are_the_same_to_the_bit(eager: list[Any]) -> None:
    for row in range(len(PROGRAMS)):
        assert (eager[4][row] == eager[5][row]) == (row in PLAIN)


def test_captures_equal_transformers(
    eager: list[Any], prompts: list[list[int]], steered: Reference
) -> None:
    _, streams = steered.run(prompts[1], len(prompts[1]))
    for capture, answer in zip(CAPTURES, eager[7:9], strict=False):
        (found,) = answer
        numbers = list(LAYERS if capture.layers is None else capture.layers)
        wanted = streams[numbers, -capture.last :].mean(axis=1)
        assert found["layers"] == numbers
        values = np.array(found["data"]).reshape(wanted.shape)
        assert np.abs(values - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert eager[9] == [None]


def test_capturing_disturbs_nobody(eager: list[Any]) -> None:
    first, second, neighbour = eager[6]
    for answer, whole in ((first, eager[4][1]), (second, eager[4][1]), (neighbour, eager[5][1])):
        assert answer["tokens"] == whole["tokens"][:2]
        np.testing.assert_allclose(answer["logprobs"], whole["logprobs"][:2], atol=1e-4)


def test_a_vector_that_is_not_here_ends_its_request_only(eager: list[Any]) -> None:
    assert [answer["alive"] for answer in eager[10]] == [[True] * 2, [False] * 2, [True] * 2]


def test_chunked_and_preempted_requests_are_steered_the_same(
    prompts: list[list[int]], steered: Reference
) -> None:
    """So little cache and such small steps that prompts are cut and requests preempted."""
    capture = {"prompt": prompts[7], "tokens": 1, "wire": {"capture": CAPTURES[2].to_wire()}}
    crowded = {
        "max_num_batched_tokens": 24,
        "block_size": 32,
        "num_gpu_blocks_override": 14,
    }
    calls: list[list[Any]] = [
        *PUT,
        ["generate", [*requests(prompts, PROGRAMS, 24), capture]],
        ["rpc", "sensefield_fetch_capture", "idle"],
        ["preemptions"],
    ]
    *_, answers, fetched, preemptions = run_offline(calls, crowded)
    assert preemptions > 0
    for answer, prompt, program in zip(answers, prompts, PROGRAMS, strict=False):
        steered.check(answer, prompt, program)
    _, streams = steered.run(prompts[7], len(prompts[7]))
    wanted = streams[:, -64:].mean(axis=1)
    values = np.array(fetched[0]["data"]).reshape(wanted.shape)
    assert np.abs(values - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_the_v2_runner_steers_the_same(prompts: list[list[int]], steered: Reference) -> None:
    """On V2 the kernel does the work, here through Triton's interpreter."""
    short = [prompt[:12] for prompt in prompts[:5]]
    captured = {"prompt": short[0], "tokens": 1, "wire": {"capture": CAPTURES[1].to_wire()}}
    calls: list[list[Any]] = [
        *PUT,
        ["generate", [*requests(short, PROGRAMS[:5], 4), captured]],
        ["rpc", "sensefield_fetch_capture", "few"],
    ]
    engine = {"max_model_len": 64, "max_num_batched_tokens": 32}
    *_, answers, fetched = run_offline(calls, engine, V2_ENVIRONMENT)
    for answer, prompt, program in zip(answers, short, PROGRAMS, strict=False):
        steered.check(answer, prompt, program)
    _, streams = steered.run(short[0], len(short[0]))
    wanted = streams[[0, 13, 29], -4:].mean(axis=1)
    values = np.array(fetched[0]["data"]).reshape(wanted.shape)
    assert np.abs(values - wanted).max() < 1e-3 * np.abs(wanted).max()
