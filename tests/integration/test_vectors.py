"""Vectors over HTTP: made, looked into, used, kept across a restart, deleted."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy

from tests.integration.client import Client, array
from tests.integration.servers import MODEL, REPOSITORY


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


def layers(seed: int, *numbers: int) -> dict[str, Any]:
    """Return random vectors of some decoder layers."""
    rng = np.random.default_rng(seed)
    return {f"layer.{n}": rng.standard_normal(576).astype(np.float32) for n in numbers}


def test_a_vector_goes_out_and_in_again_in_both_formats(v1: Client, tmp_path: Path) -> None:
    sent = layers(5, 3, 29)
    put = v1.http.put("/v1/vectors/out", content=safetensors.numpy.save(sent))
    assert put.status_code == 201, put.text
    for form in ("safetensors", "gguf"):
        file = v1.http.get(f"/v1/vectors/out/content?format={form}")
        back = v1.http.put(f"/v1/vectors/back-{form}", content=file.content)
        assert back.headers["etag"] == put.headers["etag"]
        if form == "safetensors":
            assert file.headers["etag"] == put.headers["etag"]
            found = safetensors.numpy.load(file.content)
        else:
            (tmp_path / "v.gguf").write_bytes(file.content)
            reader = gguf.GGUFReader(tmp_path / "v.gguf")
            assert reader.fields["controlvector.model_hint"].contents() == "llama"
            found = {t.name.replace("direction", "layer"): t.data for t in reader.tensors}
        assert found.keys() == sent.keys()
        assert all((found[name] == sent[name]).all() for name in sent)


def test_what_is_combined_steers_as_its_parts_together(v1: Client) -> None:
    for name, seed in (("part-a", 6), ("part-b", 7)):
        direction = np.random.default_rng(seed).standard_normal(576).astype(np.float32)
        v1.http.put(f"/v1/vectors/{name}", content=safetensors.numpy.save({"direction": direction}))
    parts = [{"vector": "part-a", "weight": 0.5}, {"vector": "part-b", "weight": -2.0}]
    source = {"combine": parts, "orthogonal_to": "part-b"}
    made = v1.http.post("/v1/vectors", json={"name": "sum", "from": source})
    assert made.status_code == 201, made.text
    whole = safetensors.numpy.load(v1.http.get("/v1/vectors/sum/content").content)["direction"]
    other = safetensors.numpy.load(v1.http.get("/v1/vectors/part-b/content").content)["direction"]
    assert abs(whole @ other) <= 1e-3
    assert [part["weight"] for part in made.json()["made_from"]["combine"]] == [0.5, -2.0]
    mixed = [{"vector": "sum"}, {"vector": "out-of-layers"}]
    v1.http.put("/v1/vectors/out-of-layers", content=safetensors.numpy.save(layers(8, 3)))
    status, error = v1.refused("/v1/vectors", {"name": "x", "from": {"combine": mixed}})
    assert (status, error["param"]) == (400, "from.combine[1].vector")


def test_names_conditions_and_pages(v1: Client) -> None:
    body = {"name": "page-1", "from": {"text": " one"}}
    made = v1.http.post("/v1/vectors", json=body)
    assert v1.refused("/v1/vectors", body)[0] == 409
    direction = safetensors.numpy.save({"direction": np.ones(576, np.float32)})
    url = "/v1/vectors/page-1"
    stale = {"If-Match": '"' + "0" * 64 + '"'}
    assert v1.http.put(url, content=direction, headers=stale).status_code == 412
    assert v1.http.delete(url, headers=stale).status_code == 412
    known = {"If-Match": made.headers["etag"]}
    assert v1.http.put(url, content=direction, headers=known).status_code == 200
    assert v1.http.put(url, content=direction, headers={"If-None-Match": "*"}).status_code == 412
    tag = {"If-None-Match": v1.http.get(url).headers["etag"]}
    assert v1.http.get(f"{url}/content", headers=tag).status_code == 304
    v1.http.put("/v1/vectors/page-2", content=direction)
    page = v1.http.get("/v1/vectors?after=page-0&limit=1").json()
    assert (page["first_id"], page["has_more"]) == ("page-1", True)
    page = v1.http.get(f"/v1/vectors?after={page['last_id']}&limit=1").json()
    assert page["first_id"] == "page-2"
    assert v1.http.get("/v1/vectors/page-2/content?format=gguf").status_code == 400


BAD = {
    "no number": ({"layer.1": np.full(576, np.nan, np.float32)}, "finite"),
    "no such layer": ({"layer.30": np.ones(576, np.float32)}, "0 to 29"),
    "of integers": ({"direction": np.ones(576, np.int64)}, "I64"),
    "too large": ({"direction": np.full(576, 1e300)}, "finite"),
    "nothing": ({"direction": np.zeros(576, np.float32)}, "zero"),
    "nowhere": ({"somewhere": np.ones(576, np.float32)}, "'direction'"),
}


@pytest.mark.parametrize(("tensors", "words"), BAD.values(), ids=BAD)
@pytest.mark.alone
def test_a_bad_file_leaves_nothing_behind(v1: Client, tensors: Any, words: str) -> None:
    folder = v1.server.log.parent / "vectors"
    before = sorted(folder.rglob("*"))
    answer = v1.http.put("/v1/vectors/bad", content=safetensors.numpy.save(tensors))
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert sorted(folder.rglob("*")) == before


def test_two_servers_share_a_store(v1: Client) -> None:
    """What another process writes is used at once; what does not fit is told of."""
    folder = v1.server.log.parent / "vectors"
    steer = {"steer": [{"vector": "shared", "strength": 12.0}]}
    body = {"prompt": "The", "logit_control": steer, "model": MODEL}
    status, error = v1.refused("/v1/completions", body)
    assert (status, error["param"]) == (404, "logit_control.steer[0].vector")
    v1.http.post("/v1/vectors", json={"name": "red", "from": {"text": " red"}})
    red = v1.http.get("/v1/vectors/red/content").content
    with writing_elsewhere(folder, "shared") as write:
        write(red, 576)
        assert " red" in v1.choice("The", logit_control=steer)["text"]
        assert v1.http.get("/v1/vectors/shared").json()["usable"] is True
        write(safetensors.numpy.save({"direction": np.ones(64, np.float32)}), 64)
        assert v1.refused("/v1/completions", body)[0] == 409
        described = v1.http.get("/v1/vectors/shared").json()
        assert described["usable"] is False
        assert "hidden size 64" in described["reason"]
        write(b"", 576)
        assert v1.refused("/v1/completions", body)[0] == 404


@contextmanager
def writing_elsewhere(folder: Path, name: str) -> Iterator[Callable[[bytes, int], None]]:
    """Put a vector, or delete it with no data, as another server would: in its own process."""
    code = """
import asyncio, base64, sys
from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, model_facts
folder, name = sys.argv[1:]
for line in sys.stdin:
    hidden_size, data = line.split(",")
    model = model_facts(int(hidden_size), layers=30)
    registry = VectorRegistry(VectorStore(folder), FakeEngine(), model)
    data = base64.b64decode(data)
    asyncio.run(registry.put(name, data) if data else registry.delete(name))
    print("done", flush=True)
"""
    command = [sys.executable, "-c", code, str(folder), name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def write(data: bytes, hidden_size: int) -> None:
            print(hidden_size, b64encode(data).decode(), sep=",", file=other.stdin, flush=True)
            assert other.stdout is not None
            assert other.stdout.readline() == "done\n"

        yield write
        other.stdin.close()
    assert other.returncode == 0


def test_a_vector_deleted_while_a_request_runs_with_it(v1: Client) -> None:
    body = {"name": "brief-sea", "from": {"text": " sea"}, "replace": True}
    assert v1.http.post("/v1/vectors", json=body).is_success
    request = {
        "model": MODEL,
        "prompt": "The",
        "max_tokens": 40,
        "temperature": 0,
        "ignore_eos": True,
        "logit_control": {"steer": [{"vector": "brief-sea", "strength": 1.0}]},
    }
    undisturbed = v1.http.post("/v1/completions", json=request).json()["choices"][0]["text"]
    parts: list[str] = []
    stream = {**request, "stream": True}
    with v1.http.stream("POST", "/v1/completions", json=stream) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                parts.append(json.loads(line[len("data: ") :])["choices"][0]["text"])
                if len(parts) == 3:
                    assert v1.http.delete("/v1/vectors/brief-sea").status_code == 204
                    # Whatever comes next may take the place that is free now.
                    body = {"name": "next", "from": {"text": " desert"}, "replace": True}
                    assert v1.http.post("/v1/vectors", json=body).is_success
    assert "".join(parts) == undisturbed
    assert v1.refused("/v1/completions", request)[0] == 404
