"""Vectors made, and every control edited, on the page."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.integration.client import Client
from tests.integration.playground.person import TOKENS, run, save, sent, tokens

BUSY_MESSAGE = "The server is busy."


def test_a_vector_is_made_and_steers(page: Page) -> None:
    run(page)
    page.get_by_text("Make a vector").click()
    page.get_by_label("Name", exact=True).fill("shore")
    page.get_by_label("Text, whose tokens it points to").fill(" beach")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator(".nearest dd").first).to_contain_text("beach")
    expect(page.get_by_role("button", name="Replace it")).to_be_visible()
    page.get_by_role("button", name="Remove bias 1").click()
    page.get_by_role("slider", name="Strength of shore").fill("1")
    expect(tokens(page, "With control").filter(has_text="beach").first).to_be_visible()
    page.get_by_text("From a contrast").click()
    page.get_by_label("Name", exact=True).fill("mood")
    page.get_by_label("Layers, empty for all").fill("14")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("slider", name="Strength of mood")).to_be_visible()
    expect(page.get_by_label("Where it acts").last).to_have_value("residual")


def test_every_control_is_edited_sent_and_saved(page: Page, v1: Client, tmp_path: Path) -> None:
    contrast = {"positive": ["It is good."], "negative": ["It is bad."], "layers": [10, 13, 14]}
    made = v1.http.post("/v1/vectors", json={"name": "good", "from": {"contrast": contrast}})
    assert made.is_success, made.text
    page.reload()
    page.get_by_label("What to match").select_option("id")
    ocean = int(page.get_by_label("Token to bias").input_value())
    page.locator(".finer summary", has_text="ocean").click()
    page.get_by_label("From position").fill("2")
    page.get_by_role("button", name="+ Suppress").click()
    page.get_by_label("Text to suppress").fill("SEA")
    page.locator(".finer summary").nth(1).click()
    page.get_by_label("Ignore case").check()
    page.get_by_role("button", name="+ Steer").click()
    page.get_by_label("Vector", exact=True).select_option("good")
    page.get_by_label("Strength of good, exactly").fill("-1.5")
    page.locator(".finer summary").nth(2).click()
    layers = page.get_by_label("Layers").last
    layers.fill("ten")
    layers.blur()
    assert layers.evaluate("field => field.matches(':user-invalid')")
    expect(page.locator(".finer summary").nth(2)).not_to_contain_text("layers")
    layers.fill("10, 13-14")
    page.get_by_label("Until before").last.fill("5")
    page.get_by_label("Most tokens").fill(str(TOKENS))  # which ends the edit before
    bodies = sent(page)
    run(page)
    assert bodies[1]["logit_control"] == {
        "bias": [{"token_id": ocean, "add": 4, "when": {"from": 2, "until": None}}],
        "suppress": [{"text": "SEA", "ignore_case": True}],
        "steer": [
            {
                **{"vector": "good", "strength": -1.5, "at": "residual", "layers": [10, 13, 14]},
                "when": {"from": None, "until": 5},
            }
        ],
    }
    text = "".join(tokens(page, "With control").all_inner_texts())
    assert "sea" not in text.lower()

    file = save(page, tmp_path)
    page.reload()
    page.get_by_label("Load").set_input_files(file)
    expect(page.locator(".finer summary")).to_have_text(
        [
            "·ocean from position 2 on",
            "every token, in any case",
            "from the prompt until before 5, layers 10, 13-14",
        ]
    )
    run(page)
    assert bodies[2:] == bodies[:2]


def test_a_vector_whose_tokens_cannot_be_read_says_so(page: Page, v1: Client) -> None:
    made = v1.http.post("/v1/vectors", json={"name": "tide", "from": {"text": " tide"}})
    assert made.is_success, made.text
    page.reload()
    page.route(
        "**/nearest?*",
        lambda route: route.fulfill(status=503, json={"error": {"message": BUSY_MESSAGE}}),
    )
    # The first vector stands there before this one is chosen, and its tokens are asked for too.
    with page.expect_response("**/tide/nearest?*"):
        page.get_by_role("button", name="+ Steer").click()
        page.get_by_label("Vector", exact=True).select_option("tide")
    expect(page.get_by_role("alert")).to_contain_text(BUSY_MESSAGE)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.unroute("**/nearest?*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".nearest dd").first).to_contain_text("tide")
