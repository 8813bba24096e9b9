"""A model without one residual stream: said so, and controlled in logit space all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.servers import MODEL, serving

VOCABULARY, SIZE, LAYERS = 49152, 64, 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("unsupported")
    save_model(folder / "model")
    flags = ("--max-model-len", "64", "--max-num-seqs", "4")
    with serving(folder, flags, model=folder / "model") as running:
        client = Client(running)
        yield client
        client.http.close()


def save_model(folder: Path) -> None:
    """Save a random Gemma 3n, whose decoder layers hand on four streams, not one."""
    torch.manual_seed(0)
    config = transformers.Gemma3nTextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size=SIZE,
        hidden_size_per_layer_input=16,
        intermediate_size=[128] * LAYERS,
        activation_sparsity_pattern=[0.0] * LAYERS,
        num_hidden_layers=LAYERS,
        layer_types=["sliding_attention", "full_attention"],
        num_attention_heads=2,
        num_key_value_heads=2,
        num_kv_shared_layers=0,
        head_dim=32,
        laurel_rank=8,
        sliding_window=64,
        max_position_embeddings=128,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(embedded_model_dir()).save_pretrained(folder)


def body(**steer: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "The sea", "logit_control": {"steer": [steer]}}


def test_its_residual_stream_is_refused_before_the_engine_sees_it(server: Client) -> None:
    layers = {"layer.1": np.ones(SIZE, np.float32)}
    made = server.http.put("/v1/vectors/layers", content=safetensors.numpy.save(layers))
    assert made.is_success
    for _ in range(2):
        status, error = server.refused(
            "/v1/completions", body(vector="layers", strength=1, at="residual")
        )
        assert (status, error["param"]) == (400, "logit_control.steer[0].at")
        assert "one residual stream" in error["message"]
    contrast = {"contrast": {"positive": ["a"], "negative": ["b"]}}
    status, error = server.refused("/v1/vectors", {"name": "contrast", "from": contrast})
    assert (status, error["param"]) == (400, "from.contrast")
    assert "one residual stream" in error["message"]


def test_its_logits_are_controlled(server: Client) -> None:
    made = server.http.post("/v1/vectors", json={"name": "sea", "from": {"text": " sea"}})
    assert made.is_success, made.text
    control = {
        "bias": [{"token_id": 17, "add": 3.0}],
        "suppress": [{"token_id": 18}],
        "steer": [{"vector": "sea", "strength": 2.0}],
    }
    seen = {"top_k": "all", "stages": ["base", "controlled"]}
    choice = server.choice("The sea", max_tokens=1, logit_control=control, distribution=seen)
    base, controlled = (
        array(choice["distribution"][stage]["logprobs"])[0] for stage in ("base", "controlled")
    )
    found = controlled - base
    assert np.isneginf(found[18])
    found = np.delete(found, [17, 18])
    # Steering adds strength times scores of mean 0 and standard deviation 1, and a constant.
    assert abs(found.std() - 2.0) <= 0.01
