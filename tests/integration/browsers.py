"""A real Chromium, and what it tells of how a page behaves in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WAIT_MS = 60_000

expect.set_options(timeout=WAIT_MS)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run a browser until the context ends."""
    assert CHROMIUM, "no chromium is installed: run `apt-get install chromium`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass(frozen=True)
class Work:
    """What the thread that draws a page and answers its person has worked, in seconds of CPU."""

    longest: float
    total: float


@contextmanager
def measuring(browser: Browser, page: Page) -> Iterator[list[Work]]:
    """Put the page's work in the list when the context ends.

    CPU time, not the clock's: what other processes take of the machine does not count.
    """
    work: list[Work] = []
    browser.start_tracing(page=page, categories=["toplevel"])
    yield work
    events = json.loads(browser.stop_tracing())["traceEvents"]
    drawing = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        each["tdur"] / 1e6
        for each in events
        if each["name"].endswith("RunTask")
        and (each["pid"], each["tid"]) in drawing
        and "tdur" in each  # not those that began before or end later
    ]
    work.append(Work(max(tasks), sum(tasks)))
