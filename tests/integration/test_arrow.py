"""Answers as Arrow streams: the same rows as in JSON, as they come, whoever reads them."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tests.integration.arrow_client import ACCEPT, body, post, read, stream
from tests.integration.client import Client, array
from tests.waiting import wait_for

PROMPT = "The history of the city begins with a small group of people who"
BOTH = ["base", "controlled"]
CONTROL: dict[str, Any] = {
    "bias": [{"text": " river", "add": 6.0}],
    "suppress": [{"text": "the", "ignore_case": True}],
}


@pytest.mark.parametrize(
    "wanted",
    [
        {"top_k": 5, "stages": BOTH},
        {"top_k": 1000},
        {"top_k": "all", "dtype": "float16", "stages": BOTH},
        {"top_k": 50, "top_p": 0.9, "stages": BOTH},
        {"top_k": "all", "top_p": 0.5},
    ],
)
def test_a_stream_holds_what_the_json_answer_holds(v1: Client, wanted: dict[str, Any]) -> None:
    fields = {"logit_control": CONTROL, "distribution": wanted}
    choice = v1.choice(PROMPT, **fields)
    told = choice["distribution"]
    rows = stream(v1, PROMPT, **fields).table
    assert rows["token_id"].to_pylist() == choice["token_ids"]
    assert rows["position"].to_pylist() == list(range(8))
    assert b"".join(rows["bytes"].to_pylist()).decode() == choice["text"]
    stages = wanted.get("stages", ["controlled"])
    for stage in stages:
        for name in ("logprob", "rank"):
            assert rows[f"{stage}_{name}"].to_numpy() == pytest.approx(
                array(told["sampled"][f"{stage}_{name}"]), abs=1e-3
            )
        columns = {"logprobs": "logprobs", "token_ids": "token_ids"}
        for name in columns:
            assert (name in told[stage]) == (f"{stage}_{name}" in rows.column_names)
        values = rows[f"{stage}_logprobs"].combine_chunks().flatten().to_numpy()
        expected = array(told[stage]["logprobs"]).reshape(-1)
        assert values.dtype == expected.dtype
        # Neighbours change the last bits of float32, so that a float16 may be the next one.
        spacing = 2**-10 if values.dtype == np.float16 else 0
        assert np.allclose(values, expected, rtol=spacing, atol=1e-3)
        if "offsets" in told[stage]:
            lengths = np.diff(array(told[stage]["offsets"])).tolist()
            assert [len(row) for row in rows[f"{stage}_token_ids"].to_pylist()] == lengths
    assert ("kl" in rows.column_names) == (len(stages) == 2)


def test_it_ends_with_the_answer_that_json_would_be(v1: Client) -> None:
    plain = v1.complete(PROMPT)
    told = stream(v1, PROMPT, distribution={"top_k": 1})
    assert told.response is not None
    for name in ("id", "created"):
        del told.response[name], plain[name]
    plain["choices"][0].pop("distribution", None)
    assert told.response == plain


def test_a_chat_streams_its_tools_and_usage_too(v1: Client) -> None:
    request = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Say hello."}],
        **{"max_tokens": 6, "seed": 1, "logprobs": True, "top_logprobs": 2},
        **{"n": 2, "stream": True, "stream_options": {"include_usage": True}},
        "distribution": {"top_k": 3},
    }
    told = read(post(v1, "/v1/chat/completions", request).content)
    assert told.response is not None
    assert told.response["object"] == "chat.completion"
    rows = told.table.to_pylist()
    for choice in told.response["choices"]:
        mine = [row for row in rows if row["choice"] == choice["index"]]
        assert [row["position"] for row in mine] == list(range(len(mine)))
        assert [row["token"] for row in mine] == [
            entry["token"] for entry in choice["logprobs"]["content"]
        ]
        assert "distribution" not in choice
    assert len(rows) == told.response["usage"]["completion_tokens"]


def test_several_prompts_and_choices_are_told_apart(v1: Client) -> None:
    prompts = [PROMPT, "One, two, three,"]
    told = stream(v1, prompts, n=2, temperature=1, seed=3, distribution={"top_k": 2})
    assert told.response is not None
    rows = told.table.to_pylist()
    for choice in told.response["choices"]:
        ids = [row["token_id"] for row in rows if row["choice"] == choice["index"]]
        assert ids == choice["token_ids"]
    assert {row["choice"] for row in rows} == {0, 1, 2, 3}


@pytest.mark.alone
def test_rows_are_there_while_the_model_still_talks(v1: Client) -> None:
    request = body(PROMPT, max_tokens=120, distribution={"top_k": 5})
    with v1.http.stream("POST", "/v1/completions", json=request, headers=ACCEPT) as answer:
        reader = pa.ipc.open_stream(_File(answer))
        assert reader.read_next_batch().num_rows >= 1
        assert metric(v1, "sensefield_in_flight_requests") == 1
        assert sum(batch.num_rows for batch in reader) > 80


@pytest.mark.parametrize(
    ("compression", "magic"), [("lz4", b"\x04\x22\x4d\x18"), ("zstd", b"\x28\xb5\x2f\xfd")]
)
def test_compressed_bodies_hold_the_same(v1: Client, compression: str, magic: bytes) -> None:
    wanted = {"top_k": "all", "dtype": "float16"}
    plain = post(v1, "/v1/completions", body(PROMPT, distribution=wanted)).content
    wanted["compression"] = compression
    packed = post(v1, "/v1/completions", body(PROMPT, distribution=wanted)).content
    assert magic in packed
    assert magic not in plain
    tables = [read(content).table for content in (plain, packed)]
    assert tables[0]["token_id"].equals(tables[1]["token_id"])
    values = [
        table["controlled_logprobs"].combine_chunks().flatten().to_numpy() for table in tables
    ]
    assert np.allclose(values[0], values[1], atol=2e-2)


def test_an_error_on_the_way_is_noticed_by_every_reader(v1: Client) -> None:
    request = body(
        PROMPT,
        allowed_token_ids=[28, 30],
        logit_control={"suppress": [{"token_id": t, "when": {"from": 4}} for t in (28, 30)]},
        distribution={"top_k": 5},
    )
    content = post(v1, "/v1/completions", request).content
    told = read(content)
    assert told.broken
    assert told.response is None
    assert told.error is not None
    assert told.error["error"]["param"] == "logit_control.suppress"
    assert 1 <= told.table.num_rows <= 4
    with pytest.raises(pa.ArrowInvalid):
        pa.ipc.open_stream(content).read_all()
    with pytest.raises(pl.exceptions.ComputeError):
        pl.read_ipc_stream(io.BytesIO(content))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "distribution"),
        ({"distribution": {"encoding": "json"}}, "distribution.encoding"),
        ({"distribution": {"compression": "gzip"}}, "distribution.compression"),
        ({"distribution": {"top_k": 0}}, "distribution.top_k"),
        ({"distribution": {}, "max_tokens": -1}, "max_tokens"),
        (
            {
                "distribution": {},
                "allowed_token_ids": [28],
                "logit_control": {"suppress": [{"token_id": 28}]},
            },
            "logit_control.suppress",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_as_json(
    v1: Client, fields: dict[str, Any], param: str
) -> None:
    answer = post(v1, "/v1/completions", body(PROMPT, **fields))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_compression_belongs_to_arrow(v1: Client) -> None:
    request = body(PROMPT, distribution={"compression": "lz4"})
    status, error = v1.refused("/v1/completions", request)
    assert (status, error["param"]) == (400, "distribution.compression")


def test_json_that_is_preferred_is_sent(v1: Client) -> None:
    headers = {"accept": f"application/json, {ACCEPT['accept']};q=0.5"}
    request = body(PROMPT, distribution={"top_k": 1})
    answer = v1.http.post("/v1/completions", json=request, headers=headers)
    assert answer.json()["choices"][0]["distribution"]["positions"] == 8


@pytest.mark.alone
def test_a_reader_who_leaves_ends_the_request(v1: Client) -> None:
    generated = metric(v1, "vllm:generation_tokens_total")
    request = body(PROMPT, max_tokens=900, distribution={"top_k": "all"})
    with v1.http.stream("POST", "/v1/completions", json=request, headers=ACCEPT) as answer:
        next(answer.iter_raw())
        assert metric(v1, "vllm:num_requests_running") == 1
    wait_for(lambda: metric(v1, "vllm:num_requests_running") == 0)
    wait_for(lambda: metric(v1, "sensefield_in_flight_requests") == 0)
    assert metric(v1, "vllm:generation_tokens_total") < generated + 900
    assert metric(v1, "sensefield_distribution_promised_bytes") == 0


def metric(client: Client, name: str) -> float:
    """Return the sum of a metric's series."""
    lines = client.http.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith((f"{name} ", f"{name}{{"))
    )


class _File(io.RawIOBase):
    """A streamed answer as a file, which is what pyarrow reads."""

    def __init__(self, answer: httpx.Response) -> None:
        self._chunks = answer.iter_raw()
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._left += chunk
        data, self._left = self._left[:size], self._left[size:]
        return data
