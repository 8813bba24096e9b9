"""Kinds of control that the page knows from /openapi.json only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.integration.playground.person import CHAT, OCEAN, run, save, sent, told

KIND = "Now and then, make the tokens that came last less likely."
PENALTY = "Nats that each of the tokens loses."
RULE = {
    "description": "A rule about words.",
    "required": ["words", "strict", "factor"],
    "properties": {
        "words": {"type": "string", "description": "Words, with spaces between them."},
        "strict": {"type": "boolean", "description": "Refuse everything else."},
        "factor": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "side": {"enum": ["left", "right"], "type": "string", "default": "left"},
        "most": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
        "pair": {"type": "array", "items": {"type": "integer"}, "default": [1, 2]},
        "when": {"anyOf": [{"$ref": "#/components/schemas/When"}, {"type": "null"}]},
    },
}
RULES = {"type": "array", "items": {"$ref": "#/components/schemas/Rule"}}
SCHEMAS: dict[str, Any] = {
    "LogitControl": {"properties": {"bias": {}, "force": {}, "word_rule": RULES}},
    "Rule": RULE,
    "When": {"type": "object", "properties": {"from": {}, "until": {}}},
}


def test_a_plugins_form_is_drawn_sent_saved_and_removed(page: Page, tmp_path: Path) -> None:
    add = page.get_by_role("button", name="+ Fresh")
    add.click()
    expect(add).to_be_disabled()  # it is no list
    expect(form(page)).to_contain_text(KIND)
    penalty = form(page).get_by_role("slider", name="Penalty of fresh")
    expect(penalty).to_have_accessible_description(PENALTY)
    ranges = {"penalty": ("0", "0", "100", "1"), "probability": ("0.5", "0", "1", "0.01")}
    for name, (value, *bounds) in {**ranges, "last": ("16", "1", "64", "1")}.items():
        slider = form(page).get_by_role("slider", name=f"{name.capitalize()} of fresh")
        expect(slider).to_have_value(value)
        assert [slider.get_attribute(each) for each in ("min", "max", "step")] == bounds

    penalty.fill("7")
    exactly = form(page).get_by_label("Penalty of fresh, exactly")
    expect(exactly).to_have_value("7")
    exactly.fill("2.25")
    last = form(page).get_by_label("Last of fresh, exactly")
    last.fill("65")
    last.blur()
    assert last.evaluate("field => field.matches(':user-invalid')")
    last.fill("8")
    form(page).locator("summary").click()
    form(page).get_by_label("From position").fill("2")
    page.get_by_label("Most tokens").focus()  # which ends the edit before
    bodies = sent(page)
    run(page)
    fresh = {"penalty": 2.25, "last": 8, "when": {"from": 2, "until": None}}
    assert bodies[1]["logit_control"] == {**OCEAN, "fresh": fresh}
    page.get_by_role("button", name="As Python").click()
    expect(page.get_by_role("dialog")).to_contain_text('"fresh": {')
    page.keyboard.press("Escape")

    file = save(page, tmp_path)
    page.reload()
    page.get_by_label("Load").set_input_files(file)
    expect(exactly).to_have_value("2.25")
    expect(form(page).locator("summary")).to_have_text("from position 2 on")
    run(page)
    assert bodies[2:] == bodies[:2]
    with page.expect_request(f"**{CHAT}") as asked:
        page.get_by_role("button", name="Remove fresh").click()
    assert json.loads(asked.value.post_data or "")["logit_control"] == OCEAN
    expect(add).to_be_enabled()
    expect(form(page)).to_have_count(0)


def test_what_the_server_does_not_take_is_said_and_can_be_removed(
    page: Page, tmp_path: Path
) -> None:
    page.get_by_role("button", name="+ Fresh").click()
    run(page)
    file = save(page, tmp_path)
    content = json.loads(file.read_text())
    content["setup"]["control"] |= {"fresh": {"penalty": 500}, "gone": [{"by": 1}]}
    file.write_text(json.dumps(content))
    page.get_by_label("Load").set_input_files(file)
    expect(page.get_by_role("group", name="Gone 1")).to_contain_text("describes no form")
    start = page.get_by_role("button", name="Run", exact=True)
    alert = page.get_by_role("alert")
    start.click()
    expect(alert).to_contain_text("logit_control.gone")
    page.get_by_role("button", name="Remove gone 1").click()
    start.click()
    expect(alert).to_contain_text("logit_control.fresh.penalty")
    page.get_by_role("button", name="Remove fresh").click()
    page.get_by_role("button", name="+ Failing").click()
    page.get_by_label("How of failing").fill("apply raises")
    start.click()
    expect(alert).to_contain_text("'failing' failed")


def test_every_type_of_field_has_its_input(page: Page) -> None:
    page.route(
        "**/openapi.json", lambda route: route.fulfill(json={"components": {"schemas": SCHEMAS}})
    )
    page.reload()
    page.get_by_role("button", name="Remove bias 1").click()
    for _ in range(2):
        page.get_by_role("button", name="+ Word rule").click()
    page.get_by_role("button", name="Remove word_rule 2").click()
    rule = page.get_by_role("group", name="Word rule 1")
    bodies = sent(page)
    run_once = page.get_by_role("button", name="Run", exact=True)
    run_once.click()
    expect(told(page)).to_contain_text("tokens.")
    assert "logit_control" not in bodies[0], "its text is not filled in yet"

    rule.get_by_label("Words of word rule 1").fill("sea ocean")
    rule.get_by_role("checkbox", name="Strict of word rule 1").check()
    expect(rule.get_by_role("slider")).to_have_value("0.01")
    rule.get_by_label("Side of word rule 1").select_option("right")
    rule.get_by_label("Most of word rule 1").fill("3")
    rule.get_by_label("Pair of word rule 1").fill("[3, 4]")
    page.get_by_label("Most tokens").focus()
    run_once.click()
    expect(page.get_by_role("alert")).to_contain_text("logit_control.word_rule")
    assert bodies[-1]["logit_control"] == {
        "word_rule": [
            {
                **{"words": "sea ocean", "strict": True, "factor": 0.01},
                **{"side": "right", "most": 3, "pair": [3, 4]},
            }
        ]
    }


def test_the_page_works_without_the_schema(page: Page) -> None:
    page.route("**/openapi.json", lambda route: route.fulfill(status=404, json={}))
    with page.expect_response("**/openapi.json"):
        page.reload()
    run(page)
    expect(page.get_by_role("alert").locator("span")).to_have_count(0)
    expect(page.get_by_role("button", name="+ Bias")).to_be_visible()
    expect(page.get_by_role("button", name="+ Fresh")).to_have_count(0)


def form(page: Page) -> Locator:
    """Return the form of the example plugin."""
    return page.get_by_role("group", name="Fresh", exact=True)
