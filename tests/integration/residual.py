"""What residual steering must do, by transformers with forward hooks, and programs to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from logit_processors.controls.steer import SteerEntry
from service.embedded_model import embedded_model_dir
from tests.entries import span, steer_residual
from tests.integration.client import Client, array
from tests.integration.offline import vector

LAYERS = list(range(30))
SEEN = {"top_k": 1, "stages": ["base"]}
"""The least distribution that gives the logprob of each token."""
CARRIED = {"everywhere": LAYERS, "middle": list(range(8, 20)), "one": [14]}
PROGRAMS: list[tuple[SteerEntry, ...]] = [
    (),
    (steer_residual("one", 60.0),),
    (),
    (steer_residual("everywhere", -1.5), steer_residual("middle", 4.0, layers=(8, 9, 19))),
    (steer_residual("one", 60.0, when=span(-6, 3)), steer_residual("middle", -3.0, when=span(5))),
    (steer_residual("one", 60.0, when=span(None, -8)),),
    (steer_residual("everywhere", 0.0),),
    (steer_residual("middle", 9.0), steer_residual("middle", -9.0)),
]
"""One of each request in a batch; the last two change nothing."""


def prompts() -> list[list[int]]:
    """Return token ids of as many prompts as there are programs, of different lengths."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    text = "The history of the city begins with a small group of people who settled near the river"
    return [tokenizer.encode(f"{text}, {'and built houses, ' * n}") for n in range(len(PROGRAMS))]


def put_all(client: Client) -> None:
    """Store every vector that the programs name."""
    for name, layers in CARRIED.items():
        rows = zip(layers, vector(name, layers), strict=True)
        body = safetensors.numpy.save({f"layer.{layer}": row for layer, row in rows})
        assert client.http.put(f"/v1/vectors/{name}", content=body).is_success


def control(program: Sequence[SteerEntry]) -> dict[str, Any]:
    """Return the ``logit_control`` of a program."""
    return {
        "steer": [
            {
                "vector": entry.vector,
                "strength": entry.strength,
                "at": "residual",
                "layers": None if entry.layers is None else list(entry.layers),
                "when": None if entry.when is None else entry.when.model_dump(by_alias=True),
            }
            for entry in program
        ]
    }


def requests(
    prompts: Sequence[Sequence[int]],
    programs: Sequence[Sequence[SteerEntry]],
    max_tokens: int,
) -> list[dict[str, Any]]:
    """Return one request of each prompt with its program, which shows its tokens' logprobs."""
    return [
        {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "logit_control": control(program),
            "distribution": SEEN,
        }
        for prompt, program in zip(prompts, programs, strict=True)
    ]


def answer_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice's tokens and their logprobs, in the form of the offline engine."""
    sampled = choice["distribution"]["sampled"]
    logprobs = array(sampled["base_logprob"]).tolist()
    return {"tokens": choice["token_ids"], "logprobs": logprobs, "alive": [True]}


class Reference:
    """The model in transformers with vectors added by forward hooks."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(
        self, tokens: Sequence[int], prompt_len: int, steer: Sequence[SteerEntry] = ()
    ) -> tuple[torch.Tensor, NDArray[np.float32]]:
        """Return log-probabilities ``[tokens, vocab]`` and streams ``[layers, tokens, hidden]``."""
        positions = torch.arange(len(tokens)) + 1 - prompt_len
        streams: list[NDArray[np.float32]] = []

        def hook(layer: int) -> Any:
            def add(_module: Any, _arguments: Any, output: Any) -> torch.Tensor:
                stream: torch.Tensor = output
                for entry in steer:
                    start, stop = entry.bounds
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
        self, answer: Mapping[str, Any], prompt: Sequence[int], steer: Sequence[SteerEntry]
    ) -> None:
        """Compare an engine's greedy tokens and their log-probabilities."""
        tokens = answer["tokens"]
        logprobs, _ = self.run([*prompt, *tokens], len(prompt), steer)
        chosen = logprobs[len(prompt) - 1 : -1]
        assert chosen.argmax(-1).tolist() == tokens
        wanted = chosen.max(-1).values.tolist()
        np.testing.assert_allclose(answer["logprobs"], wanted, atol=2e-3)
        assert all(answer["alive"])
