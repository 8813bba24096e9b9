"""A stream leaves the page time for its person."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.browsers import measuring
from tests.integration.client import Client
from tests.integration.playground.person import OCEAN, settled, tokens, told
from tests.integration.servers import MODEL

REPLAY = """
([events, pace]) => {
  const answer = (signal) => {
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
        signal.addEventListener("abort", () => {
          clearInterval(timer);
          controller.error(signal.reason);
        });
      },
    });
  };
  window.fetch = async (_, { signal }) => new Response(answer(signal));
  window.drawn = 0;
  new MutationObserver(() => { window.drawn += 1; }).observe(
    document.querySelector(".texts"), { childList: true, subtree: true });
}
"""
"""Answers each request of the page with these events, so many in a second."""
DONE = "data: [DONE]\n\n"
CUT_OFF = """
([events, end]) => {
  window.fetch = async () => new Response(new ReadableStream({
    start(controller) {
      const encoder = new TextEncoder();
      for (const event of events) controller.enqueue(encoder.encode(event));
      if (end !== null) controller.enqueue(encoder.encode(end));
    },
    pull(controller) {
      end === null ? controller.error(new TypeError("network error")) : controller.close();
    },
  }));
}
"""
"""Answers each request with these events and an end: null is that of a connection that breaks."""


def test_a_fast_stream_leaves_the_page_time(page: Page, browser: Browser, v1: Client) -> None:
    pace, times = 60, 4
    events = rows(v1, 64) * times
    page.evaluate(REPLAY, [[*events, DONE], pace])
    with measuring(browser, page) as work:
        page.get_by_role("button", name="Run", exact=True).click()
        settled(page)
    for lane in ("Without control", "With control"):
        expect(tokens(page, lane)).to_have_count(64 * times)
    assert page.evaluate("() => window.drawn") > 20  # as they came, not once at the end
    assert work[0].longest < 0.05
    # Two texts at 60 tokens a second each: the page keeps up with them, on a slow core too.
    assert work[0].total < len(events) / pace


def test_texts_that_were_stopped_are_the_same_so_far(page: Page, v1: Client) -> None:
    page.evaluate(REPLAY, [[*rows(v1, 16), DONE], 4])
    page.get_by_role("button", name="Run", exact=True).click()
    expect(tokens(page, "With control").nth(1)).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(told(page)).to_have_text("Stopped. The two texts are the same so far.")


def rows(v1: Client, count: int) -> list[str]:
    """Return the events of a controlled answer of so many tokens."""
    body = {
        "model": MODEL,
        **{"prompt": "The sea", "max_tokens": count, "ignore_eos": True, "temperature": 0},
        **{"stream": True, "return_token_ids": True, "logit_control": OCEAN},
        "distribution": {"top_k": 20, "stages": ["base", "controlled"]},
    }
    with v1.http.stream("POST", "/v1/completions", json=body) as answer:
        events = [f"{line}\n\n" for line in answer.iter_lines() if line.startswith("data: {")]
    return [each for each in events if '"distribution"' in each]


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ('data: {"error": {"message": "the engine has died"}}\n\n' + DONE, "The engine has died."),
        ("", "broke off before the answer had ended"),
        (None, "broke off before the answer had ended"),
    ],
    ids=["an error", "no end", "a broken connection"],
)
def test_a_stream_that_fails_is_told_and_not_summed_up(
    end: str | None, sentence: str, page: Page, v1: Client
) -> None:
    page.evaluate(CUT_OFF, [rows(v1, 4), end])
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)
    expect(told(page)).to_have_text("")
    # What a broken connection still held is the browser's to give or keep.
    expect(tokens(page, "With control").nth(2)).to_be_visible()
