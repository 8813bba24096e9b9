"""The page in a real browser, against the real engine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import axe_playwright_python
import numpy as np
import openai
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from tests.integration.browsers import WAIT_MS, browsing, measuring
from tests.integration.client import Client, array
from tests.integration.servers import MODEL

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
TOKENS = 12
CHAT = "/v1/chat/completions"
OCEAN = {"bias": [{"text": " ocean", "add": 4}]}

SHIFTS = """
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifted(shift.value);
}).observe({ type: "layout-shift", buffered: true });
"""
"""Tells how far things moved by themselves, each as a share of the window."""

REPLAY = """
([events, pace]) => {
  const answer = () => {
    const start = performance.now();
    const encoder = new TextEncoder();
    let told = 0;
    return new ReadableStream({
      start(controller) {
        const timer = setInterval(() => {
          const due = Math.min(events.length, Math.ceil((performance.now() - start) * pace / 1000));
          for (; told < due; told += 1) controller.enqueue(encoder.encode(events[told]));
          if (told < events.length) return;
          clearInterval(timer);
          controller.close();
        }, 4);
      },
    });
  };
  window.fetch = async () => new Response(answer());
  window.drawn = 0;
  new MutationObserver(() => { window.drawn += 1; }).observe(
    document.querySelector(".texts"), { childList: true, subtree: true });
}
"""
"""Answers each request of the page with these events, so many in a second."""

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests of this file."""
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, v1: Client) -> Iterator[Page]:
    """The page as a person finds it.

    It must not fail, talk to no one but its server, and move nothing under a person's hands.
    """
    context = browser.new_context(
        viewport={"width": 1360, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda told: failures.append(told.text) if violates(told.text) else None)
    elsewhere: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url))
    shifts: list[float] = []

    def shifted(share: float) -> None:
        shifts.append(share)

    page.expose_function("shifted", shifted)
    page.add_init_script(SHIFTS)
    page.goto(f"{v1.http.base_url}/playground")
    expect(page.locator(".model")).to_have_text(MODEL)
    yield page
    context.close()
    assert failures == []
    assert sum(shifts) < 0.1
    assert [url for url in elsewhere if not url.startswith((str(v1.http.base_url), "blob:"))] == []


def violates(told: str) -> bool:
    """Tell whether a line of the console is of the content security policy."""
    return "Content Security Policy" in told


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


def shares(page: Page, lane: str) -> list[float]:
    """Return how strongly each token of a lane is coloured."""
    read = "found => found.map(each => Number(each.style.getPropertyValue('--share')))"
    found: list[float] = tokens(page, lane).evaluate_all(read)
    return found


def asked(v1: Client, control: dict[str, Any] | None = OCEAN) -> dict[str, Any]:
    """Return what the server says to the page's own request, without streaming."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Describe the sea in one sentence."}],
        "temperature": 0,
        "max_tokens": TOKENS,
        "logit_control": control,
        "distribution": {"top_k": 20, "stages": ["base", "controlled"]},
    }
    answer = v1.http.post(CHAT, json=body)
    assert answer.is_success, answer.text
    distribution: dict[str, Any] = answer.json()["choices"][0]["distribution"]
    return distribution


def test_one_click_streams_two_texts_and_marks_where_they_part(page: Page, v1: Client) -> None:
    bodies = sent(page)
    run(page)
    body = bodies[0]
    assert body["stream"] is True
    assert body["distribution"]["stages"] == ["base", "controlled"]
    ids = [array(asked(v1, each)["sampled"]["token_id"]) for each in (None, OCEAN)]
    assert [tokens(page, lane).count() for lane in ("Without control", "With control")] == [
        len(each) for each in ids
    ]
    shared = min(map(len, ids))
    parts = int(np.flatnonzero(ids[0][:shared] != ids[1][:shared])[0])
    expect(told(page)).to_have_text(f"The two texts part at token {parts + 1}.")
    for lane in ("Without control", "With control"):
        expect(tokens(page, lane).nth(parts)).to_have_class("token parts")
    assert set(shares(page, "Without control")) == {0}
    assert shares(page, "With control")[parts] > 0


def test_colours_say_what_they_stand_for(page: Page, v1: Client) -> None:
    run(page)
    answer = asked(v1)
    logprobs = array(answer["sampled"]["controlled_logprob"])
    wanted = {
        "Probability": np.exp(logprobs),
        "Surprisal": -logprobs / 6,
        "Entropy": array(answer["controlled"]["entropy"]) / 5,
        "KL": np.sqrt(np.maximum(array(answer["kl"]), 0) / 4),
    }
    for name, values in wanted.items():
        page.locator(".colours label", has_text=name).click()
        expect(page.get_by_role("radio", name=name)).to_be_checked()
        page.wait_for_timeout(50)  # a frame
        np.testing.assert_allclose(
            shares(page, "With control"), np.clip(values, 0, 1), atol=0.02, err_msg=name
        )


def test_a_clicked_token_shows_its_distribution_before_and_after(page: Page, v1: Client) -> None:
    run(page)
    answer = asked(v1)
    place = int(np.argmax(array(answer["kl"])))
    tokens(page, "With control").nth(place).click()
    expect(page.get_by_role("heading", name=f"Token {place + 1}:")).to_be_visible()
    sampled = {name: array(tensor)[place] for name, tensor in answer["sampled"].items()}
    figures = page.locator(".figures tr")
    expect(figures.nth(2)).to_have_text(f"rank{sampled['base_rank']}{sampled['controlled_rank']}")
    expect(figures.nth(5)).to_contain_text(f"{array(answer['kl'])[place]:.1f}")
    drawn = page.locator(".bars .drawn .number").last
    assert (
        abs(float(drawn.inner_text().split()[0]) / 100 - np.exp(sampled["controlled_logprob"]))
        < 0.01
    )
    page.get_by_role("button", name="Find the neighbours").click()
    # This model has one matrix at both ends.
    expect(page.get_by_role("heading", name="Going in and coming out")).to_be_visible()
    expect(page.locator(".near li")).to_have_count(18)


def test_a_slider_goes_through_zero(page: Page) -> None:
    run(page)
    slider = page.get_by_role("slider", name="Bias of “ ocean” in nats")
    slider.fill("0")
    expect(told(page)).to_have_text("The two texts are the same.")
    slider.fill("-8")
    settled(page)
    slider.fill("8")
    expect(told(page)).to_contain_text("part at token")
    expect(tokens(page, "With control").filter(has_text="ocean").first).to_be_visible()


def test_a_vector_is_made_and_steers(page: Page) -> None:
    run(page)
    page.get_by_text("Make a vector").click()
    page.get_by_label("Name", exact=True).fill("shore")
    page.get_by_label("Text, whose tokens it points to").fill(" beach")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator(".nearest dd").first).to_contain_text("beach")
    page.get_by_role("button", name="Remove bias 1").click()
    page.get_by_role("slider", name="Strength of shore").fill("1")
    expect(tokens(page, "With control").filter(has_text="beach").first).to_be_visible()
    page.get_by_text("From a contrast").click()
    page.get_by_label("Name", exact=True).fill("mood")
    page.get_by_label("Layers, empty for all").fill("14")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("slider", name="Strength of mood")).to_be_visible()
    expect(page.get_by_label("Where it acts").last).to_have_value("residual")


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
    content["lanes"]["controlled"]["tokens"][0]["text"] = "<img src=x onerror=alert(1)>"
    file.write_text(json.dumps(content))
    page.get_by_label("Load").set_input_files(file)
    expect(tokens(page, "With control").first).to_contain_text("<img")
    assert page.locator(".strip img").count() == 0

    file.write_text('{"format": "another"}')
    page.get_by_label("Load").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("is no trace that this page can read.")


def test_a_refusal_is_a_sentence(page: Page) -> None:
    page.get_by_label("Most tokens").fill("4096")
    page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert").locator("span")
    expect(alert).to_contain_text("max_tokens")
    assert alert.inner_text()[0].isupper()
    assert alert.inner_text().endswith(".")
    page.get_by_role("button", name="Dismiss").click()
    expect(alert).to_have_count(0)


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
    page.get_by_label("Layers").last.fill("10, 13-14")
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


def test_the_keyboard_is_enough(page: Page, tmp_path: Path) -> None:
    reach(page, page.get_by_role("textbox", name="Prompt"))
    page.keyboard.press("Control+Enter")
    settled(page)
    slider = page.get_by_role("slider", name="Bias of “ ocean” in nats")
    reach(page, slider)
    with page.expect_request(f"**{CHAT}"):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("4.5")
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


def test_a_fast_stream_leaves_the_page_time(page: Page, browser: Browser, v1: Client) -> None:
    pace, times = 60, 4
    body = {
        "model": MODEL,
        **{"prompt": "The sea", "max_tokens": 64, "ignore_eos": True, "temperature": 0},
        **{"stream": True, "return_token_ids": True, "logit_control": OCEAN},
        "distribution": {"top_k": 20, "stages": ["base", "controlled"]},
    }
    with v1.http.stream("POST", "/v1/completions", json=body) as answer:
        events = [f"{line}\n\n" for line in answer.iter_lines() if line.startswith("data: {")]
    events = [each for each in events if '"distribution"' in each] * times
    page.evaluate(REPLAY, [events, pace])
    with measuring(browser, page) as work:
        page.get_by_role("button", name="Run", exact=True).click()
        settled(page)
    for lane in ("Without control", "With control"):
        expect(tokens(page, lane)).to_have_count(64 * times)
    assert page.evaluate("() => window.drawn") > 20  # as they came, not once at the end
    assert work[0].longest < 0.05
    # Two texts at 60 tokens a second each: drawing them takes at most half of a core.
    assert work[0].total < len(events) / pace / 2


def test_nothing_serious_stands_in_anyones_way(page: Page) -> None:
    run(page)
    for scheme, width in (("light", 1360), ("dark", 360)):
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


def test_another_token_is_taken_and_the_text_goes_on_from_there(page: Page) -> None:
    run(page)
    before = tokens(page, "With control").all_inner_texts()
    tokens(page, "With control").nth(3).click()
    expect(page.get_by_role("heading", name="Token 4:")).to_be_visible()
    other = page.locator(".bars tr:not(.drawn) button").first
    taken = other.inner_text()
    other.click()
    settled(page)
    expect(tokens(page, "With control").nth(3)).to_have_class("token forced")
    after = tokens(page, "With control").all_inner_texts()
    assert after[:3] == before[:3]
    assert after[3].strip() == taken.strip()
    page.get_by_role("button", name="Undo the branch").click()
    expect(tokens(page, "With control").nth(3)).to_have_text(before[3])


def test_the_lens_shows_where_the_answer_appears(page: Page, v1: Client) -> None:
    run(page)
    page.get_by_role("button", name="Read every layer").click()
    rows = page.locator(".map tbody tr")
    expect(rows).to_have_count(30)
    count = tokens(page, "With control").count()
    expect(rows.first.locator("td")).to_have_count(count)
    # The last layer is what the model says: its greedy choices, before control.
    ranks = array(asked(v1)["sampled"]["base_rank"])
    bold = rows.first.locator("td.first")
    expect(bold).to_have_count(int((ranks == 1).sum()))
