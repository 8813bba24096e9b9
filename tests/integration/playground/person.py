"""What a person does on the page and sees there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Request, expect

from tests.integration.client import Client
from tests.integration.servers import MODEL

TOKENS = 12
MESSAGES = [{"role": "user", "content": "Describe the sea in one sentence."}]
CHAT = "/v1/chat/completions"
UNKNOWN = "\N{EN DASH}"
"""In place of a figure that is not known."""
OCEAN = {"bias": [{"text": " ocean", "add": 4}]}


def run(page: Page) -> None:
    """Press Run and wait until both texts are there."""
    page.get_by_label("Most tokens").fill(str(TOKENS))
    page.get_by_role("button", name="Run", exact=True).click()
    settled(page)


def settled(page: Page) -> None:
    """Wait until nothing is being generated any more."""
    expect(told(page)).to_contain_text("text")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)


def told(page: Page) -> Locator:
    """Return the line that says what happened."""
    return page.locator(".texts [role=status]")


def tokens(page: Page, lane: str) -> Locator:
    """Return the tokens of a lane."""
    return page.get_by_role("region", name=lane, exact=True).get_by_role("option")


def sent(page: Page) -> list[dict[str, Any]]:
    """Return a list that fills with the bodies of the requests for text from now on."""
    bodies: list[dict[str, Any]] = []

    def note(asked: Request) -> None:
        if CHAT in asked.url:
            bodies.append(json.loads(asked.post_data or ""))

    page.on("request", note)
    return bodies


def save(page: Page, folder: Path) -> Path:
    """Press Save, and return the file."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    file = folder / "trace.json"
    download.value.save_as(file)
    return file


def asked(v1: Client, control: dict[str, Any] | None = OCEAN) -> dict[str, Any]:
    """Return what the server says to the page's own request, without streaming."""
    body = {
        "model": MODEL,
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": TOKENS,
        "logit_control": control,
        "distribution": {"top_k": 20, "stages": ["base", "controlled"]},
    }
    answer = v1.http.post(CHAT, json=body)
    assert answer.is_success, answer.text
    distribution: dict[str, Any] = answer.json()["choices"][0]["distribution"]
    return distribution


def prompt_ids(v1: Client) -> list[int]:
    """Return the tokens of the page's prompt."""
    answer = v1.http.post("/tokenize", json={"model": MODEL, "messages": MESSAGES})
    assert answer.is_success, answer.text
    ids: list[int] = answer.json()["tokens"]
    return ids
