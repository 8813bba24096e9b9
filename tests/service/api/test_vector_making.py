"""Vectors made of contrasting prompts, over HTTP."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import pytest
from safetensors.numpy import load

from service.api import vector_making
from service.vectors import creation
from tests.service.api.vector_routes import URL, refusal

CONTRAST = {"positive": ["ab", "b"], "negative": ["c"], "layers": [3, 1]}


async def test_a_vector_of_contrasting_prompts(http: httpx.AsyncClient) -> None:
    made = await http.post(URL, json={"name": "up", "from": {"contrast": CONTRAST}})
    assert made.status_code == 201, made.text
    assert made.json()["layers"] == [1, 3]
    found = load((await http.get(f"{URL}/up/content")).content)
    # FakeStates: layer times the last token, in all places but the first, which is 1.
    mean = (ord("b") + ord("b")) / 2 - ord("c")
    assert found["layer.3"].tolist() == [0, 3 * mean, 3 * mean, 3 * mean]
    assert made.json()["made_from"]["contrast"] == {
        "method": "mean_difference",
        "last": 1,
        "positive": ["ab", "b"],
        "negative": ["c"],
    }


async def test_many_prompts_are_remembered_by_their_digest(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "_KEPT_PROMPT_BYTES", 10)
    made = await http.post(URL, json={"name": "up", "from": {"contrast": CONTRAST}})
    written = json.dumps({"positive": ["ab", "b"], "negative": ["c"]}, separators=(",", ":"))
    assert made.json()["made_from"]["contrast"] == {
        "method": "mean_difference",
        "last": 1,
        "prompts": 3,
        "sha256": hashlib.sha256(written.encode()).hexdigest(),
    }


async def events(http: httpx.AsyncClient, body: dict[str, Any], is_done: bool = True) -> list[Any]:
    """Return a stream's events; only of a success is the last one OpenAI's."""
    answer = await http.post(URL, json={**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert (lines[-1] == "[DONE]") == is_done
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_progress_is_told_prompt_by_prompt(http: httpx.AsyncClient) -> None:
    *progress, made = await events(http, {"name": "up", "from": {"contrast": CONTRAST}})
    assert [(each["object"], each["done"], each["total"]) for each in progress] == [
        ("vector.progress", done, 3) for done in range(4)
    ]
    assert made["name"] == "up"
    assert made["sha256"] == (await http.get(f"{URL}/up")).json()["sha256"]


async def test_a_stream_ends_in_the_error_that_it_met(http: httpx.AsyncClient) -> None:
    source = {"contrast": {**CONTRAST, "layers": [99]}}
    *_, last = await events(http, {"name": "up", "from": source}, is_done=False)
    assert last["error"]["param"] == "from.contrast.layers"
    assert (await http.get(f"{URL}/up")).status_code == 404


async def test_what_is_known_to_fail_fails_before_any_work(http: httpx.AsyncClient) -> None:
    body = {"name": "up", "from": {"contrast": CONTRAST}}
    assert (await http.post(URL, json=body)).status_code == 201
    again = await http.post(URL, json={**body, "stream": True})
    assert refusal(again) == (409, "name")


@pytest.mark.parametrize(
    ("contrast", "param"),
    [
        ({"positive": []}, "from.contrast.positive"),
        ({"negative": []}, "from.contrast.negative"),
        ({"positive": [""]}, "from.contrast.positive[0]"),
        ({"positive": [[]]}, "from.contrast.positive[0]"),
        ({"positive": ["a", [{"role": "user"}]]}, "from.contrast.positive[1][0].content"),
        ({"positive": [[{"role": "x", "content": ""}]]}, "from.contrast.positive[0][0].role"),
        ({"positive": ["a" * 41]}, "from.contrast.positive[0]"),
        ({"positive": ["a"] * 513}, "from.contrast.positive"),
        ({"positive": ["c"]}, "from.contrast"),
        ({"method": "pca"}, "from.contrast"),
        ({"method": "mean"}, "from.contrast.method"),
        ({"layers": [12]}, "from.contrast.layers"),
        ({"layers": [1, 1]}, "from.contrast"),
        ({"layers": []}, "from.contrast.layers"),
        ({"layers": [-1]}, "from.contrast.layers[0]"),
        ({"last": 0}, "from.contrast.last"),
        ({"last": 65}, "from.contrast.last"),
        ({"positive": ["xb"], "negative": ["yb"]}, "from.contrast"),
    ],
)
async def test_what_makes_no_contrast(
    contrast: dict[str, Any], param: str, http: httpx.AsyncClient
) -> None:
    body = {"name": "up", "from": {"contrast": {**CONTRAST, **contrast}}}
    assert refusal(await http.post(URL, json=body)) == (400, param)
    assert (await http.get(URL)).json()["data"] == []


async def test_both_sides_together_have_a_limit(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_making, "MAX_CONTRAST_TOKENS", 4)
    body = {"name": "up", "from": {"contrast": {**CONTRAST, "positive": ["ab", "cd"]}}}
    refused = await http.post(URL, json=body)
    assert refusal(refused) == (400, "from.contrast")
    assert "5 tokens" in refused.json()["error"]["message"]
    body["from"] = {"contrast": CONTRAST}
    assert (await http.post(URL, json=body)).status_code == 201
