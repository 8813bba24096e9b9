"""The page in a real browser, against the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.browsers import WAIT_MS, browsing
from tests.integration.client import Client
from tests.integration.servers import MODEL

SHIFTS = """
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifted(shift.value);
}).observe({ type: "layout-shift", buffered: true });
"""
"""Tells how far things moved by themselves, each as a share of the window."""


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
