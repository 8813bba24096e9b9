"""A server on a shared network: keys, tenants, limits, and a line about each request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import ne
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from service.access.keys import Key
from tests.integration.browsers import browsing
from tests.integration.client import Client
from tests.integration.guarded.server import OF_VLLM, ORIGIN, SECRETS, Guarded
from tests.integration.servers import MODEL
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("guarded")

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def alice(guarded: Guarded) -> Iterator[Client]:
    client = guarded.client("alice")
    yield client
    client.http.close()


@pytest.fixture(scope="module")
def bob(guarded: Guarded) -> Iterator[Client]:
    client = guarded.client("bob")
    yield client
    client.http.close()


@pytest.fixture(scope="module")
def root(guarded: Guarded) -> Iterator[Client]:
    client = guarded.client("root")
    yield client
    client.http.close()


def make(client: Client, name: str, text: str) -> httpx.Response:
    """Make a vector of a text."""
    return client.http.post(
        "/v1/vectors", json={"name": name, "from": {"text": text}, "replace": True}
    )


def steered(name: str) -> dict[str, Any]:
    """Return a chat steered along a vector."""
    return CHAT | {"logit_control": {"steer": [{"vector": name, "strength": 1}]}}


def test_keys_do_what_their_roles_say(guarded: Guarded, alice: Client, root: Client) -> None:
    assert alice.http.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert alice.http.post("/v1/load_lora_adapter", json={}).status_code == 403
    with guarded.client("meg").http as meg:
        assert meg.post("/v1/chat/completions", json=CHAT).status_code == 403
    of_vllm = {"authorization": f"Bearer {OF_VLLM}"}
    assert httpx.get(f"{guarded.server.url}/v1/models", headers=of_vllm).status_code == 200
    assert make(root, "shared", " sea").status_code in (200, 201)


def test_keys_change_while_the_server_runs(guarded: Guarded, alice: Client) -> None:
    before = guarded.keys.read_text()
    new = {"authorization": "Bearer sf-carol"}
    carol = Key.of("carol", ["inference"], "sf-carol").to_line()

    def status() -> int:
        return httpx.get(f"{guarded.server.url}/v1/models", headers=new).status_code

    try:
        assert status() == 401
        guarded.keys.write_text(f"{before}{carol}\n")
        assert status() == 200
        guarded.keys.write_text(f"{carol}\nnonsense\n")
        assert status() == 200
        assert alice.http.get("/v1/models").status_code == 200
    finally:
        guarded.keys.write_text(before)
    assert status() == 401
    wait_for(lambda: "the API keys stay as they were" in guarded.server.log.read_text())


def test_metrics_are_on_their_own_port_for_their_own_role(guarded: Guarded, root: Client) -> None:
    assert root.http.get("/metrics").status_code == 404
    url = f"{guarded.metrics_url}/metrics"
    assert httpx.get(url).status_code == 401
    for path in ("/health", "/playground", "/playground/metrics"):
        assert httpx.get(f"{guarded.metrics_url}{path}").status_code == 404
    with guarded.client("alice").http as http:
        assert http.get(url).status_code == 403
    with guarded.client("meg").http as http:
        assert "sensefield_requests_total" in http.get(url).text
        assert http.get(f"{guarded.metrics_url}/v1/models").status_code == 403


def test_a_tenants_vector_does_not_exist_for_another(
    alice: Client, bob: Client, root: Client
) -> None:
    assert make(root, "shared", " sea").is_success
    assert make(alice, "own", " ocean").is_success
    assert [v["name"] for v in alice.http.get("/v1/vectors").json()["data"]] == ["own", "shared"]
    assert [v["name"] for v in bob.http.get("/v1/vectors").json()["data"]] == ["shared"]
    assert alice.http.post("/v1/chat/completions", json=steered("own")).is_success
    assert bob.http.post("/v1/chat/completions", json=steered("shared")).is_success

    def told(client: Client, name: str) -> list[tuple[int, str]]:
        """Return all that a client is told of a vector, less its name."""
        combined = {"name": "mine", "from": {"combine": [{"vector": name}]}}
        answers = [
            client.http.get(f"/v1/vectors/{name}"),
            client.http.get(f"/v1/vectors/{name}/content"),
            client.http.get(f"/v1/vectors/{name}/nearest"),
            client.http.delete(f"/v1/vectors/{name}"),
            client.http.post("/v1/chat/completions", json=steered(name)),
            client.http.post("/v1/vectors", json=combined),
        ]
        return [(answer.status_code, answer.text.replace(name, "NAME")) for answer in answers]

    assert told(bob, "own") == told(bob, "none")
    assert {status for status, _ in told(bob, "own")} == {404}
    assert make(bob, "own", " fire").is_success
    texts = [c.http.get("/v1/vectors/own").json()["made_from"]["text"] for c in (alice, bob)]
    assert texts == [" ocean", " fire"]
    assert bob.http.delete("/v1/vectors/shared").status_code == 404
    assert bob.http.delete("/v1/vectors/own").status_code == 204
    assert alice.http.delete("/v1/vectors/own").status_code == 204


@pytest.mark.parametrize(
    ("path", "asked", "usage"),
    [
        ("/v1/completions", "prompt", "prompt_tokens_details"),
        ("/v1/responses", "input", "input_tokens_details"),
    ],
)
@pytest.mark.parametrize("salt", [{}, {"cache_salt": "theirs"}])
def test_the_prefix_cache_tells_no_tenant_what_another_asked(
    alice: Client, bob: Client, root: Client, path: str, asked: str, usage: str, salt: Any
) -> None:
    body = {"model": MODEL, asked: f"{path} {salt} and a secret " * 20, "temperature": 0} | salt

    def cached(client: Client) -> int:
        """Return how many tokens of the prompt came out of the cache."""
        answer = client.http.post(path, json=body | {"max_tokens": 2, "max_output_tokens": 2})
        assert answer.is_success, answer.text
        details = answer.json()["usage"][usage]
        return 0 if details is None else int(details["cached_tokens"])

    assert [cached(client) for client in (alice, bob, root)] == [0, 0, 0]
    assert all(cached(client) >= 32 for client in (alice, bob, root))


def test_a_template_of_the_clients_own_is_refused(alice: Client) -> None:
    for path in ("/v1/chat/completions", "/tokenize"):
        status, error = alice.refused(path, CHAT | {"chat_template": "{{ 1 }}"})
        assert (status, error["param"]) == (400, "chat_template"), error


def test_a_request_is_known_by_its_id_in_the_log(guarded: Guarded, alice: Client) -> None:
    control = {"logit_control": {"bias": [{"token_id": 5, "add": 1}, {"token_id": 6, "add": 1}]}}
    for number, stream in enumerate((False, True)):
        body = CHAT | control | {"stream": stream}
        headers = {"x-request-id": f"door-{number}"}
        answer = alice.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.headers["x-request-id"] == f"door-{number}"
    headers = {"x-request-id": "door-arrow", "accept": "application/vnd.apache.arrow.stream"}
    body = CHAT | control | {"distribution": {"top_k": 1}}
    assert alice.http.post("/v1/chat/completions", json=body, headers=headers).is_success
    score = {"prompt": "Hi", "continuations": [" you", " there"]} | control
    headers = {"x-request-id": "door-score"}
    assert alice.http.post("/v1/score", json=score, headers=headers).is_success
    told = alice.http.post("/v1/chat/completions", content=b"{").headers["x-request-id"]

    def lines() -> dict[str, dict[str, Any]]:
        """Return what the log says of each request; a line follows its answer's last byte."""
        log = guarded.server.log.read_text().rpartition("\n")[0]
        found = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return {line["request_id"]: line for line in found}

    wanted = ("door-0", "door-1", "door-arrow", "door-score", told)
    wait_for(lambda: lines().keys() >= set(wanted))
    whole, streamed, arrow, scored, refused = (lines()[request_id] for request_id in wanted)
    log = guarded.server.log.read_text()
    assert (whole["key"], whole["route"]) == ("alice", "/v1/chat/completions")
    for line in (whole, streamed, arrow):
        assert (line["outcome"], line["status"], line["tokens"]) == ("ok", 200, 2)
        assert line["controls"] == {"token_bias": 2}
        assert line["bytes"] > 100
    assert (scored["outcome"], scored["controls"]) == ("ok", {"token_bias": 2})
    assert (refused["status"], refused["controls"]) == (415, {})
    assert "sf-alice" not in log
    assert '"Hi"' not in log


def test_a_page_of_an_allowed_origin_may_ask_and_read(guarded: Guarded, alice: Client) -> None:
    page = {"origin": ORIGIN}
    asking = page | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    url = f"{guarded.server.url}/v1/chat/completions"
    preflight = httpx.options(url, headers=asking)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = httpx.options(url, headers=asking | {"origin": "http://other.example"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, None)
    assert httpx.options(f"{guarded.metrics_url}/metrics", headers=asking).status_code == 401
    answers = {
        200: alice.http.get("/v1/models", headers=page),
        401: httpx.get(f"{guarded.server.url}/v1/models", headers=page),
        403: alice.http.get("/collective_rpc", headers=page),
        404: alice.http.get("/v1/models/none", headers=page),
        413: alice.http.post("/v1/score", content=b"x" * (16 << 20) + b"x", headers=page),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


def test_anthropics_clients_send_their_key_and_read_their_errors(guarded: Guarded) -> None:
    url = f"{guarded.server.url}/v1/messages"
    key = {"x-api-key": SECRETS["alice"]}
    assert httpx.post(url, json=CHAT, headers=key, timeout=60).json()["type"] == "message"
    for headers, fields, status, kind in (
        ({}, {}, 401, "authentication_error"),
        ({"x-api-key": SECRETS["meg"]}, {}, 403, "permission_error"),
        (key, {"model": "none"}, 404, "not_found_error"),
        (key, {"max_tokens": "many"}, 400, "invalid_request_error"),
        (key, {"logit_control": {}}, 400, "invalid_request_error"),
    ):
        answer = httpx.post(url, json=CHAT | fields, headers=headers)
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert set(told) == {"type", "error", "request_id"}
        assert (told["type"], told["error"]["type"]) == ("error", kind)
        assert told["request_id"] == answer.headers["request-id"]
    assert httpx.get(url, headers=key).json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/tokenize"])
def test_sizes_hold_on_every_route(alice: Client, path: str) -> None:
    answer = alice.http.post(path, content=b"x" * (16 << 20) + b"x")
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "body")
    body = {"model": MODEL, "input": "a\0b", "prompt": "a\0b", "messages": "a\0b"}
    status, error = alice.refused(path, body)
    assert status == 400
    assert error["param"] in ("input", "prompt", "messages")


def test_the_playground_asks_for_the_key_and_keeps_it_in_its_tab(guarded: Guarded) -> None:
    with browsing() as browser:
        page = browser.new_page()
        page.goto(f"{guarded.server.url}/playground")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server asks for an API key.")
        run = page.get_by_role("button", name="Run", exact=True)
        looks = "each => [getComputedStyle(each).backgroundColor, getComputedStyle(each).cursor]"
        expect(run).to_be_disabled()
        expect(page.locator(".model")).to_have_text("Not connected")
        disabled = run.evaluate(looks)
        assert disabled[1] == "not-allowed"
        field = alert.get_by_label("API key")
        field.fill("sf-wrong")
        field.press("Enter")
        expect(alert).to_contain_text("The server does not know this API key.")
        field.fill(SECRETS["alice"])
        field.press("Enter")
        expect(page.locator(".model")).to_have_text(MODEL)
        expect(field).to_have_count(0)
        assert all(map(ne, run.evaluate(looks), disabled))
        page.get_by_label("Most tokens").fill("4")
        run.click()
        expect(page.locator(".texts [role=status]")).to_contain_text("text")
        page.get_by_role("button", name="As curl").click()
        expect(page.get_by_role("dialog")).to_contain_text("$SENSEFIELD_API_KEY")
        assert SECRETS["alice"] not in page.content()
        kept = "() => [sessionStorage, localStorage].map(each => JSON.stringify(each))"
        session, local = page.evaluate(kept)
        assert SECRETS["alice"] in session
        assert SECRETS["alice"] not in local
