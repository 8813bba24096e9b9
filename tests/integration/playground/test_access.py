"""Whoever cannot see colours, use a mouse or open a wide window can use the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.integration.client import Client
from tests.integration.playground.person import CHAT, run, settled, tokens

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
COLOURS = ("Probability", "Surprisal", "Entropy", "KL")

FOCUS = """
() => {
  const usable = (each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility()
    && (each.type !== "radio" || each.checked);
  const marked = (each) => each !== null
    && (getComputedStyle(each).outlineStyle !== "none" || marked(each.parentElement));
  const all = "a[href], button, input, select, textarea, summary, [tabindex]";
  window.missed = new Set([...document.querySelectorAll(all)].filter(usable));
  window.unmarked = [];
  document.addEventListener("focusin", ({ target }) => {
    window.missed.delete(target);
    if (!marked(target)) window.unmarked.push(target.outerHTML.slice(0, 100));
  });
  document.activeElement.blur();
  return window.missed.size;
}
"""
"""Notes from now on what of all that can be used was focused, and whether that was seen."""


def test_the_keyboard_is_enough(page: Page) -> None:
    reach(page, page.get_by_role("textbox", name="Prompt"))
    page.keyboard.press("Control+Enter")
    settled(page)
    exactly = page.get_by_label("Bias of “ ocean” in nats, exactly")
    reach(page, exactly)
    page.keyboard.type("6")
    with page.expect_request(lambda asked: '"add":6' in (asked.post_data or "")):
        page.keyboard.press("Control+Enter")  # it counts, though the field has not been left
    expect(exactly).to_be_focused()
    settled(page)
    slider = page.get_by_role("slider", name="Bias of “ ocean” in nats")
    slider.focus()
    with page.expect_request(f"**{CHAT}"):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("6.5")
    settled(page)
    reach(page, page.get_by_role("listbox", name="Tokens with control").locator("[tabindex='0']"))
    page.keyboard.press("Home")
    for key, lane, place in (
        ("ArrowRight", "With control", 1),
        ("ArrowRight", "With control", 2),
        ("ArrowLeft", "With control", 1),
        ("ArrowUp", "Without control", 1),
    ):
        page.keyboard.press(key)
        expect(tokens(page, lane).nth(place)).to_have_attribute("aria-selected", "true")
        expect(tokens(page, lane).nth(place)).to_be_focused()
    reach(page, page.get_by_role("button", name="Read every layer"))
    page.keyboard.press("Enter")
    expect(page.locator(".map tbody tr")).to_have_count(30)
    reach(page, page.get_by_role("button", name="Save"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert json.loads(Path(download.value.path()).read_text())["lanes"]["controlled"]

    usable = page.evaluate(FOCUS)
    assert usable > 50
    for _ in range(usable + 20):  # what scrolls can be focused too
        page.keyboard.press("Tab")
    assert page.evaluate("() => [...window.missed].map(each => each.outerHTML)") == []
    assert page.evaluate("() => window.unmarked") == []


def reach(page: Page, target: Locator) -> None:
    """Press Tab until something has the focus."""
    for _ in range(200):
        if target.count() and target.evaluate("each => each === document.activeElement"):
            return
        page.keyboard.press("Tab")
        page.evaluate("() => new Promise(requestAnimationFrame)")  # until the page has answered
    raise AssertionError(f"Tab does not lead to {target}")


def as_it_opens(page: Page) -> None:
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_visible()


def as_text(page: Page, colour: str) -> None:
    run(page)
    page.locator(".colours label", has_text=colour).click()
    tokens(page, "With control").nth(1).click()


def as_map(page: Page) -> None:
    run(page)
    page.get_by_role("button", name="Read every layer").click()
    expect(page.locator(".map tbody tr")).to_have_count(30)


def as_editor(page: Page) -> None:
    for kind in ("Suppress", "Steer", "Fresh", "Failing"):
        page.get_by_role("button", name=f"+ {kind}").click()
    for summary in page.locator(".finer summary").all():
        summary.click()
    page.get_by_text("Make a vector").click()
    page.get_by_text("From a contrast").click()


def as_code(page: Page) -> None:
    page.get_by_role("button", name="As curl").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def as_refusal(page: Page) -> None:
    page.get_by_role("textbox", name="Prompt").fill("sea " * 3000)  # the model has less room
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()


STATES: dict[str, Callable[[Page], None]] = {
    "opened": as_it_opens,
    **{colour: partial(as_text, colour=colour) for colour in COLOURS},
    "map": as_map,
    "editor": as_editor,
    "code": as_code,
    "refusal": as_refusal,
}


DAILY = ("KL", "editor")
"""States with the most in them: the text with its panels, and every form."""


@pytest.mark.parametrize("state", STATES)
def test_nothing_serious_stands_in_anyones_way(
    page: Page, v1: Client, state: str, full: bool
) -> None:
    if state not in DAILY and not full:
        pytest.skip("only with --full: each state takes twenty seconds")
    v1.http.post(
        "/v1/vectors", json={"name": "shell", "from": {"text": " shell"}, "replace": True}
    ).raise_for_status()
    page.reload()
    STATES[state](page)
    for scheme, width in product(("light", "dark"), (1360, 360)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 760})
        page.evaluate(AXE)
        found = page.evaluate("() => axe.run()")
        serious = [
            (each["id"], [node["target"] for node in each["nodes"]])
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
