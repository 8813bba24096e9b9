"""Vectors over HTTP: made, looked into, used, kept across a restart, deleted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from tests.integration.client import Client, array
from tests.integration.servers import serving


def test_a_vector_made_from_text_raises_that_text_and_its_kin(v1: Client) -> None:
    made = v1.http.post("/v1/vectors", json={"name": "sea", "from": {"text": " ocean"}})
    assert made.status_code == 201, made.text
    described = v1.http.get("/v1/vectors/sea?k=8").json()
    assert described["space"] == "unembedding"
    raised = [entry["token"] for entry in described["nearest"]["raised"]]
    assert raised[0] == " ocean"
    assert {" Ocean", " oceans", " sea"} <= set(raised)
    scores = [entry["score"] for entry in described["nearest"]["raised"]]
    assert scores == sorted(scores, reverse=True)
    assert "sea" in [vector["name"] for vector in v1.http.get("/v1/vectors").json()["data"]]


def test_strength_counts_standard_deviations(v1: Client) -> None:
    direction = np.random.default_rng(3).standard_normal(576).astype(np.float32)
    for name, scale in {"small": 0.01, "large": 50.0}.items():
        body = safetensors.numpy.save({"direction": direction * scale})
        assert v1.http.put(f"/v1/vectors/{name}", content=body).is_success
    shifts = []
    for name in ("small", "large"):
        choice = v1.choice(
            "The",
            max_tokens=1,
            logit_control={"steer": [{"vector": name, "strength": 2.0}]},
            distribution={"top_k": "all", "stages": ["base", "controlled"]},
        )
        base, controlled = (
            array(choice["distribution"][stage]["logprobs"])[0] for stage in ("base", "controlled")
        )
        shifts.append(controlled - base)
    assert abs(shifts[0].std() - 2.0) <= 1e-3
    assert np.abs(shifts[0] - shifts[1]).max() <= 1e-3


def test_opposite_vectors_cancel(v1: Client) -> None:
    direction = np.random.default_rng(4).standard_normal(576).astype(np.float32)
    for name, sign in {"there": 1, "back": -1}.items():
        body = safetensors.numpy.save({"direction": sign * direction})
        assert v1.http.put(f"/v1/vectors/{name}", content=body).is_success
    both = {"steer": [{"vector": name, "strength": 3.0} for name in ("there", "back")]}
    seen = {"top_k": 1, "stages": ["base", "controlled"]}
    choice = v1.choice("The", max_tokens=4, logit_control=both, distribution=seen)
    assert array(choice["distribution"]["kl"]).max() <= 1e-4
    one = {"steer": [{"vector": "there", "strength": 3.0}]}
    choice = v1.choice("The", max_tokens=4, logit_control=one, distribution=seen)
    assert array(choice["distribution"]["kl"]).max() > 0.1


def test_a_deleted_vector_is_gone_and_a_name_can_be_used_again(v1: Client) -> None:
    request = {"name": "brief", "from": {"text": " red"}}
    assert v1.http.post("/v1/vectors", json=request).status_code == 201
    assert v1.http.delete("/v1/vectors/brief").status_code == 204
    assert v1.http.delete("/v1/vectors/brief").status_code == 404
    assert v1.http.get("/v1/vectors/brief").status_code == 404
    request["from"] = {"text": " green"}
    assert v1.http.post("/v1/vectors", json=request).status_code == 201
    raised = v1.http.get("/v1/vectors/brief?k=1").json()["nearest"]["raised"]
    assert raised[0]["token"] == " green"


def test_vectors_survive_a_restart_and_sigterm_drains(tmp_path: Path) -> None:
    flags = ("--max-model-len", "256", "--max-num-seqs", "4")
    with serving(tmp_path, flags) as server:
        client = Client(server)
        made = client.http.post("/v1/vectors", json={"name": "sea", "from": {"text": " sea"}})
        sha256 = made.json()["sha256"]
        body = {"model": "x", "prompt": "The", "max_tokens": 40, "ignore_eos": True}
        body["model"] = client.http.get("/v1/models").json()["data"][0]["id"]
        tokens = 0
        with client.http.stream("POST", "/v1/completions", json={**body, "stream": True}) as lines:
            for line in lines.iter_lines():
                if not tokens:
                    server.process.terminate()
                tokens += line.startswith("data: {")
        assert tokens == 40, "SIGTERM must let a running request end"
        assert server.process.wait(60) == 0
        client.http.close()
    with serving(tmp_path, flags) as server:
        client = Client(server)
        assert client.http.get("/v1/vectors/sea").json()["sha256"] == sha256
        steer = {"steer": [{"vector": "sea", "strength": 12.0}]}
        assert " sea" in client.choice("The", logit_control=steer)["text"]
        client.http.close()
