"""Traces saved and loaded, requests as code, refusals as sentences."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path

import openai
import pytest
from playwright.sync_api import Page, expect

from tests.integration.client import Client
from tests.integration.playground.person import (
    CHAT,
    UNKNOWN,
    run,
    save,
    sent,
    settled,
    tokens,
    told,
)


def test_a_trace_is_saved_and_loaded(page: Page, tmp_path: Path) -> None:
    run(page)
    before = [tokens(page, lane).all_inner_texts() for lane in ("Without control", "With control")]
    file = save(page, tmp_path)
    page.reload()
    page.get_by_label("Load").set_input_files(file)
    expect(told(page)).to_have_text("trace.json is loaded.")
    after = [tokens(page, lane).all_inner_texts() for lane in ("Without control", "With control")]
    assert after == before

    content = json.loads(file.read_text())
    texts = ("<img src=x onerror=alert(1)>", ":\n  \n#")
    for token, text in zip(content["lanes"]["controlled"]["tokens"], texts, strict=False):
        token["text"] = text
    file.write_text(json.dumps(content))
    page.get_by_label("Load").set_input_files(file)
    expect(tokens(page, "With control").first).to_contain_text("<img")
    assert page.locator(".strip img").count() == 0
    # Each line break of a token breaks the line.
    expect(tokens(page, "With control").nth(1).locator("br")).to_have_count(2)
    expect(tokens(page, "With control").nth(1)).to_have_text(":↵··↵#")

    content["lanes"]["controlled"]["control"] = {"steer": 5}
    for unreadable in (content, {"format": "another"}):
        file.write_text(json.dumps(unreadable))
        page.get_by_label("Load").set_input_files(file)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("is no trace that this page can read.")
        alert.get_by_role("button", name="Dismiss").click()


def test_a_steered_trace_that_was_not_compared_says_so(page: Page, tmp_path: Path) -> None:
    """Its rows before control have the steering in them: they are not shown as before."""
    run(page)
    file = save(page, tmp_path)
    content = json.loads(file.read_text())
    lane = content["lanes"]["controlled"]
    lane["control"] = {"steer": [{"vector": "calm", "strength": 1, "at": "residual"}]}
    shown = page.locator(".distribution > p").first
    before = page.locator(".figures tr").nth(1).locator("td").first
    for compared in (False, True):
        lane["compared"] = compared
        file.write_text(json.dumps(content))
        page.get_by_label("Load").set_input_files(file)
        tokens(page, "With control").nth(1).click()
        expect(shown).to_contain_text("model without any" if compared else "has not been read")
        expect(page.locator(".figures tr").nth(5)).to_have_text(f"KL{UNKNOWN}")
        assert (before.inner_text() == UNKNOWN) is not compared
    saved = json.loads(save(page, tmp_path).read_text())["lanes"]["controlled"]
    assert saved["compared"]
    assert [token["base"] for token in saved["tokens"]] == [
        token["base"] for token in lane["tokens"]
    ]


def test_a_trace_of_another_model_is_only_looked_at(page: Page, tmp_path: Path) -> None:
    run(page)
    place = tokens(page, "With control").nth(1)
    place.click()
    likeliest = page.locator(".bars tbody th")
    mine = likeliest.all_inner_texts()
    file = save(page, tmp_path)
    content = json.loads(file.read_text())
    content["model"] = "another/model"
    content["texts"] = {token: f"<{token}>" for token in content["texts"]}
    file.write_text(json.dumps(content))
    page.get_by_label("Load").set_input_files(file)
    expect(told(page)).to_contain_text("is of another/model")
    place.click()
    expect(likeliest.last).to_contain_text("<")
    expect(page.locator(".bars button:enabled")).to_have_count(0)
    expect(page.get_by_role("button", name="Read every layer")).to_have_count(0)
    expect(page.get_by_role("button", name="Find the neighbours")).to_have_count(0)
    again = json.loads(save(page, tmp_path).read_text())
    assert {name: again[name] for name in ("model", "lanes", "texts")} == {
        name: content[name] for name in ("model", "lanes", "texts")
    }
    run(page)
    place.click()
    expect(likeliest).to_have_text(mine)


def test_the_field_for_tokens_takes_what_the_model_has_room_for(page: Page, v1: Client) -> None:
    (model,) = v1.http.get("/v1/models").json()["data"]
    most = page.get_by_label("Most tokens")
    most.fill("1000000")
    most.blur()
    expect(most).to_have_value(str(model["max_model_len"] - 1))


def test_a_refusal_is_a_sentence(page: Page) -> None:
    page.get_by_role("textbox", name="Prompt").fill("sea " * 3000)
    page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert").locator("span")
    expect(alert).to_contain_text("tokens")
    assert alert.inner_text()[0].isupper()
    assert alert.inner_text().endswith(".")
    page.get_by_role("button", name="Dismiss").click()
    expect(alert).to_have_count(0)


def test_a_refusal_calls_a_field_what_the_page_calls_it(page: Page) -> None:
    error = {"message": "max_tokens: 5000 is too many; allowed: 1 to 2047", "param": "max_tokens"}
    page.route(f"**{CHAT}", lambda route: route.fulfill(status=400, json={"error": error}))
    page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert").locator("span")
    expect(alert).to_have_text("Most tokens: 5000 is too many; allowed: 1 to 2047.")


def test_the_code_is_the_request_that_was_sent(
    page: Page, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = sent(page)
    run(page)
    ran = []
    hooks = {"request": [lambda asked: ran.append(asked.read())]}
    hooked = openai.DefaultHttpxClient(event_hooks=hooks)
    monkeypatch.setattr(openai, "OpenAI", partial(openai.OpenAI, http_client=hooked))
    exec(code(page, "Python"), {})
    hooked.close()
    assert json.loads(ran[0]) == bodies[1]
    assert "controlled_logprob" in capsys.readouterr().out

    tokens(page, "Without control").nth(2).click()
    page.locator(".bars tr:not(.drawn) button").first.click()
    expect(tokens(page, "Without control").nth(2)).to_have_class("token forced")
    settled(page)
    command = shlex.split(code(page, "curl"))
    assert command[:3] == ["curl", "--no-buffer", f"{page.url.rpartition('/playground')[0]}{CHAT}"]
    assert json.loads(command[-1]) == bodies[2]
    assert len(bodies[2]["logit_control"]["force"]["token_ids"]) == 3


def code(page: Page, language: str) -> str:
    """Return what a person copies as code."""
    page.get_by_role("button", name=f"As {language}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("status")).to_have_text(f"Copied as {language}.")
    copied: str = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == dialog.locator("pre").text_content()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    return copied
