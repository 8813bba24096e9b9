"""The vector routes over HTTP: put, made, changed under a condition, listed, read, refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load

from service.vectors.exchange import read_upload
from tests.service.api.vector_routes import MODEL, ONE, URL, refusal
from tests.unit_support import FOUR, safetensors

TWO = safetensors(layer_5=[4, 3, 2, 1])
TAG_ONE, TAG_TWO = (f'"{read_upload(data, MODEL).content.sha256}"' for data in (ONE, TWO))


async def test_put_is_201_then_200_and_says_what_is_there(http: httpx.AsyncClient) -> None:
    first = await http.put(f"{URL}/a", content=ONE)
    assert first.status_code == 201
    assert first.headers["etag"] == TAG_ONE
    assert first.headers["location"] == f"{URL}/a"
    again = await http.put(f"{URL}/a", content=TWO)
    assert again.status_code == 200
    assert again.headers["etag"] == TAG_TWO
    got = await http.get(f"{URL}/a")
    assert got.headers["etag"] == TAG_TWO
    assert {key: value for key, value in got.json().items() if key != "nearest"} == again.json()
    assert got.json()["nearest"]["raised"] == [{"token_id": 1, "token": "b", "score": 2.0}]
    nearest = (await http.get(f"{URL}/a/nearest")).json()
    assert {side: nearest[side] for side in ("raised", "lowered")} == got.json()["nearest"]


async def test_post_makes_and_does_not_replace_unless_asked(http: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"name": "a", "from": {"text": "b"}}
    made = await http.post(URL, json=body)
    assert made.status_code == 201
    assert made.json()["made_from"] == {"text": "b", "token_ids": [98]}
    assert made.json()["model"] == "tiny"
    assert refusal(await http.post(URL, json=body)) == (409, "name")
    replaced = await http.post(URL, json={**body, "replace": True})
    assert replaced.status_code == 200
    known = {"if-match": made.headers["etag"]}
    assert (await http.post(URL, json=body, headers=known)).status_code == 200
    known = {"if-match": TAG_TWO}
    assert refusal(await http.post(URL, json=body, headers=known)) == (412, "if-match")


async def test_post_combines(http: httpx.AsyncClient) -> None:
    await http.put(f"{URL}/a", content=TWO)
    parts = [{"vector": "a", "weight": 2.5}, {"vector": "a", "weight": -0.5}]
    made = await http.post(URL, json={"name": "b", "from": {"combine": parts}})
    assert made.status_code == 201
    content = await http.get(f"{URL}/b/content")
    assert load(content.content)["layer.5"].tolist() == [8, 6, 4, 2]
    source = {"combine": [{"vector": "a"}], "orthogonal_to": "b"}
    nothing = await http.post(URL, json={"name": "c", "from": source})
    assert refusal(nothing) == (400, "from.combine")
    source["combine"] = [{"vector": "absent"}]
    unknown = await http.post(URL, json={"name": "c", "from": source})
    assert refusal(unknown) == (404, "from.combine[0].vector")


async def test_preconditions_keep_what_has_changed(http: httpx.AsyncClient) -> None:
    url = f"{URL}/a"
    assert (await http.put(url, content=ONE, headers={"if-match": "*"})).status_code == 412
    create = {"if-none-match": "*"}
    assert (await http.put(url, content=ONE, headers=create)).status_code == 201
    assert refusal(await http.put(url, content=TWO, headers=create)) == (412, "if-none-match")
    other, same = {"if-match": TAG_TWO}, {"if-match": TAG_ONE}
    assert refusal(await http.put(url, content=TWO, headers=other)) == (412, "if-match")
    assert refusal(await http.delete(url, headers=other)) == (412, "if-match")
    assert (await http.get(url)).headers["etag"] == TAG_ONE
    assert (await http.put(url, content=TWO, headers=same)).status_code == 200
    assert (await http.delete(url, headers=same)).status_code == 412
    assert (await http.delete(url, headers=other)).status_code == 204
    assert refusal(await http.delete(url, headers=other)) == (412, "if-match")
    assert refusal(await http.delete(url)) == (404, "vector")
    assert refusal(await http.put(url, content=ONE, headers={"if-match": "x"})) == (400, "if-match")


async def test_content_in_both_formats_and_not_twice(http: httpx.AsyncClient) -> None:
    await http.put(f"{URL}/a", content=TWO)
    file = await http.get(f"{URL}/a/content")
    assert file.headers["etag"] == TAG_TWO
    assert 'filename="a.safetensors"' in file.headers["content-disposition"]
    assert load(file.content)["layer.5"].tolist() == [4, 3, 2, 1]
    gguf = await http.get(f"{URL}/a/content?format=gguf")
    assert gguf.content.startswith(b"GGUF")
    assert gguf.headers["etag"] != file.headers["etag"]
    for known, path, status in (
        (TAG_TWO, "content", 304),
        (f"W/{TAG_TWO}", "content", 304),
        ("*", "content", 304),
        (TAG_ONE, "content", 200),
        (TAG_TWO, "content?format=gguf", 200),
        (gguf.headers["etag"], "content?format=gguf", 304),
    ):
        answer = await http.get(f"{URL}/a/{path}", headers={"if-none-match": known})
        assert answer.status_code == status, (known, path)
        assert (answer.content == b"") == (status == 304)
    for data in (file.content, gguf.content):
        assert (await http.put(f"{URL}/b", content=data)).headers["etag"] == TAG_TWO
    await http.put(f"{URL}/c", content=ONE)
    assert refusal(await http.get(f"{URL}/c/content?format=gguf")) == (400, "format")
    assert refusal(await http.get(f"{URL}/c/content?format=onnx")) == (400, "query.format")
    assert refusal(await http.get(f"{URL}/absent/content")) == (404, "vector")


async def test_pages(http: httpx.AsyncClient) -> None:
    empty = (await http.get(URL)).json()
    assert empty == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    for name in ("c", "a", "b"):
        await http.put(f"{URL}/{name}", content=ONE)
    page = (await http.get(f"{URL}?limit=2")).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", True)
    rest = (await http.get(f"{URL}?limit=2&after={page['last_id']}")).json()
    assert [entry["id"] for entry in rest["data"]] == ["c"]
    assert rest["has_more"] is False
    for query, param in (
        ("limit=0", "query.limit"),
        ("limit=1001", "query.limit"),
        ("limit=x", "query.limit"),
        ("after=..", "after"),
    ):
        assert refusal(await http.get(f"{URL}?{query}")) == (400, param)


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("a", b"", (400, "body")),
        ("a", b"\x80\x04\x95pickle", (415, "body")),
        ("a", b"PK\x03\x04", (415, "body")),
        ("a", ONE[:-1], (400, "body")),
        ("a", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", (400, "body")),
        ("a", safetensors(direction=[1, 2, 3]), (400, "body")),
        ("a", safetensors(layer_12=[1, 2, 3, 4]), (400, "body")),
        ("A", ONE, (400, "name")),
        ("a%00", ONE, (400, "name")),
        ("%2e%2e%5cb", ONE, (400, "name")),
        (".a", ONE, (400, "name")),
    ],
    ids=range(11),
)
async def test_what_is_refused_changes_nothing(
    name: str, body: bytes, expected: tuple[int, str], http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await http.put(f"{URL}/a", content=TWO)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert refusal(await http.put(f"{URL}/{name}", content=body)) == expected
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


async def test_a_body_too_large_is_refused_before_it_is_read(
    http: httpx.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10 * MODEL.max_file_bytes:
            sent += 1 << 16
            yield bytes(1 << 16)

    assert refusal(await http.put(f"{URL}/a", content=endless())) == (413, "body")
    assert sent < 2 * MODEL.max_file_bytes


async def test_a_full_store_is_507(http: httpx.AsyncClient) -> None:
    for at in range(5):
        assert (await http.put(f"{URL}/n{at}", content=ONE)).status_code == 201
    assert refusal(await http.put(f"{URL}/n5", content=ONE)) == (507, "name")
    layers = {f"layer_{at}": [1.0] * 4 for at in range(1, 12)}
    big = [
        await http.put(f"{URL}/n{at}", content=safetensors(layer_0=[at + 1.0] * 4, **layers))
        for at in range(3)
    ]
    assert refusal(big[-1]) == (507, "body")
    assert (await http.get(f"{URL}/n2")).headers["etag"] == TAG_ONE


async def test_a_damaged_vector_can_be_looked_at_and_deleted(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await http.put(f"{URL}/a", content=ONE)
    (tmp_path / "names" / "a.json").write_bytes(b"{")
    got = await http.get(f"{URL}/a")
    assert got.status_code == 200
    assert "etag" not in got.headers
    assert got.json()["usable"] is False
    assert got.json()["nearest"] is None
    assert (await http.get(f"{URL}/a/nearest")).status_code == 409
    assert (await http.get(f"{URL}/a/content")).status_code == 409
    body = {"name": "a", "from": {"text": "b"}}
    assert (await http.post(URL, json=body)).status_code == 200, "it stands for nothing"
    (tmp_path / "names" / "a.json").write_bytes(b"{")
    assert (await http.delete(f"{URL}/a")).status_code == 204


async def test_a_text_in_the_embedding_is_a_vector_at_layer_0(http: httpx.AsyncClient) -> None:
    source = {"text": "abc", "space": "embedding"}
    made = await http.post(URL, json={"name": "in", "from": source})
    assert made.json()["space"] == "residual"
    told = {"text": "abc", "token_ids": [97, 98, 99], "space": "embedding"}
    assert made.json()["made_from"] == told
    found = load((await http.get(f"{URL}/in/content")).content)
    assert found["layer.0"].tolist() == [len(FOUR) + 3] * 4
    wrong = {"combine": [{"vector": "in"}], "space": "embedding"}
    refused = await http.post(URL, json={"name": "x", "from": wrong})
    assert refusal(refused) == (400, "from")


async def test_each_layer_tells_what_it_raises(http: httpx.AsyncClient) -> None:
    await http.put(f"{URL}/deep", content=safetensors(layer_2=[1, 2, 3, 4], layer_5=[4, 3, 2, 1]))
    found = (await http.get(f"{URL}/deep/nearest?k=1")).json()
    assert found["raised"] == [{"token_id": 1, "token": "b", "score": 2.0}]
    layer = {
        "raised": [{"token_id": 0, "token": "a", "score": 1.0}],
        "lowered": [{"token_id": 2, "token": "ab", "score": -1.0}],
    }
    assert found["layers"] == {"2": layer, "5": layer}
    await http.put(f"{URL}/flat", content=ONE)
    assert (await http.get(f"{URL}/flat/nearest")).json()["layers"] == {}
