"""The page's pictures: `python docs/playground/pictures.py`, beside a running server.

Makes the vector `cheerful`, runs the prompt that the page comes with under a bias and that vector,
asks for the neighbours and the lens, and writes desktop and phone in both themes beside this file.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
WIDTHS = {"desktop": (1360, 1100, 1.0), "phone": (390, 844, 1.5)}
CHEERFUL = {
    "positive": ["I feel happy about this, it is", "She loved the movie because it was"],
    "negative": ["I feel sad about this, it is", "She hated the movie because it was"],
    "layers": [14],
}


def make_vector(url: str) -> None:
    """Make the vector that the pictures steer along, in place of an older one."""
    body = {"name": "cheerful", "from": {"contrast": CHEERFUL}, "replace": True}
    httpx.post(f"{url}/v1/vectors", json=body, timeout=300).raise_for_status()


def fill(page: Page) -> None:
    """Do what a person does until every part of the page shows something."""
    page.get_by_role("button", name="+ Steer").click()
    page.get_by_label("Vector", exact=True).select_option("cheerful")
    page.get_by_label("Where it acts").select_option("residual")
    page.get_by_label("Strength of cheerful, exactly").fill("1.5")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".texts [role=status]")).to_contain_text("part at token")
    page.get_by_role("button", name="Find the neighbours").click()
    expect(page.locator(".near li").first).to_be_visible()
    page.get_by_role("button", name="Read every layer").click()
    expect(page.locator(".map tbody tr").first).to_be_visible()
    expect(page.locator(".nearest dd").first).not_to_have_text("…")


def take(browser: Browser, url: str, out: Path) -> None:
    """Write one picture of the whole page for each width and theme."""
    for device, (width, height, scale) in WIDTHS.items():
        page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=scale
        )
        page.goto(f"{url}/playground")
        fill(page)
        page.evaluate("() => scrollTo(0, 0)")  # the cards that stay in sight go along
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.screenshot(path=out / f"{device}-{theme}.png", full_page=True)
        page.close()


def main(arguments: list[str] | None = None) -> None:
    """Make the vector and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:8000", help="of the server")
    parser.add_argument("--out", type=Path, default=HERE, help="folder; %(default)s")
    options = parser.parse_args(arguments)
    expect.set_options(timeout=120_000)
    make_vector(options.url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(browser, options.url, options.out)
        browser.close()


if __name__ == "__main__":
    main()
