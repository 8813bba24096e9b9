"""A stream leaves the page time for its person."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from tests.integration.browsers import measuring
from tests.integration.client import Client
from tests.integration.playground.person import OCEAN, settled, tokens
from tests.integration.servers import MODEL

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
    # Two texts at 60 tokens a second each: the page keeps up with them, on a slow core too.
    assert work[0].total < len(events) / pace
