"""Vectors out of repeng steer here as they do there, and ours there as they do here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.repeng_child import MARK
from tests.integration.servers import REPOSITORY

REPENG = Path(sys.prefix) / "repeng"
"""Where ``make`` installs repeng, apart, because it asks for an older numpy."""
PAIRS = [
    ("I feel happy about this, it is", "I feel sad about this, it is"),
    ("What a wonderful day this has been,", "What a terrible day this has been,"),
    ("She loved the movie because it was", "She hated the movie because it was"),
]
PROMPT = "My friend told me about the trip and"
LAYERS = [10, 14, 18]
TOKENS = 24


def repeng(job: dict[str, Any]) -> Any:
    """Have repeng do a job."""
    assert REPENG.is_dir(), f"{REPENG} is missing: run the tests with `make test`"
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.repeng_child", str(REPENG)],
        input=json.dumps(job),
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.split(MARK)[-1])


def tokens_of(text: str) -> list[int]:
    """Return the token ids of a text."""
    token_ids: list[int] = AutoTokenizer.from_pretrained(embedded_model_dir()).encode(text)
    return token_ids


def ours(client: Client, name: str, prompt: list[int], strength: float) -> dict[str, Any]:
    choice = client.choice(
        prompt,
        max_tokens=TOKENS,
        logit_control={
            "steer": [{"vector": name, "strength": strength, "at": "residual", "layers": LAYERS}]
        },
        distribution={"top_k": 1, "stages": ["base"]},
    )
    logprobs = array(choice["distribution"]["sampled"]["base_logprob"]).tolist()
    return {"tokens": choice["token_ids"], "logprobs": logprobs}


def there(path: Path, prompt: list[int], strength: float, **train: Any) -> dict[str, Any]:
    """Return repeng's greedy tokens and log-probabilities under a vector's file."""
    job = {"load": str(path), "layers": LAYERS, "prompt": prompt, "tokens": TOKENS}
    found: dict[str, Any] = repeng({**job, "strength": strength, **train})
    return found


def check_same(client: Client, name: str, theirs: dict[str, Any], strength: float) -> None:
    """Compare a vector's greedy tokens and their log-probabilities here and there."""
    prompt = tokens_of(PROMPT)
    found = ours(client, name, prompt, strength)
    assert found["tokens"] == theirs["tokens"]
    np.testing.assert_allclose(found["logprobs"], theirs["logprobs"], atol=2e-3)
    assert found["tokens"] != client.choice(prompt, max_tokens=TOKENS)["token_ids"]


def test_their_vector_steers_the_same_here(v1: Client, tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    theirs = there(path, tokens_of(PROMPT), -6.0, train=PAIRS)
    put = v1.http.put("/v1/vectors/theirs", content=path.read_bytes())
    assert put.is_success, put.text
    # repeng leaves layer 0 out.
    assert put.json()["layers"] == list(range(1, 30))
    check_same(v1, "theirs", theirs, -6.0)


@pytest.mark.usefixtures("only_full")
def test_our_vector_steers_the_same_there(v1: Client, tmp_path: Path) -> None:
    positive, negative = zip(*PAIRS, strict=True)
    contrast = {"positive": list(positive), "negative": list(negative), "layers": LAYERS}
    body = {"name": "ours", "from": {"contrast": contrast}, "replace": True}
    assert v1.http.post("/v1/vectors", json=body).is_success
    path = tmp_path / "ours.gguf"
    path.write_bytes(v1.http.get("/v1/vectors/ours/content?format=gguf").content)
    check_same(v1, "ours", there(path, tokens_of(PROMPT), 1.5), 1.5)
