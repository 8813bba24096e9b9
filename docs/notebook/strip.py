"""A biased text, coloured by four measures: `python docs/notebook/strip.py`.

What a cell of a notebook shows, of a chat with a running server: writes strip.html and,
where Chromium is installed, its picture strip.png beside this file.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

from service.notebook import Measure, Trace

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
MEASURES: tuple[Measure, ...] = ("probability", "surprisal", "entropy", "kl")


def ask(url: str) -> Trace:
    """Return the trace of a chat under a bias."""
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Describe the sea in two sentences."}],
        "temperature": 0,
        "max_tokens": 48,
        "logit_control": {"bias": [{"text": " ocean", "add": 4.0}]},
        "distribution": {"top_k": 5, "stages": ["base", "controlled"]},
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    answer.raise_for_status()
    texts = httpx.get(f"{url}/v1/tokens", timeout=60).json()["data"]
    return Trace.of(answer.json()["choices"][0], texts)


def page(trace: Trace) -> str:
    """Return a page of the strips."""
    strips = [trace.coloured(measure)._repr_html_() for measure in MEASURES]
    return f'<meta charset="utf-8"><body style="width:720px">{"<hr>".join(strips)}</body>\n'


def draw(html: str, path: Path) -> None:
    """Take a picture of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 740, "height": 200}, device_scale_factor=2)
        view.set_content(html)
        view.screenshot(path=path, full_page=True)
        browser.close()


def main(arguments: list[str] | None = None) -> None:
    """Ask, print the first tokens, write the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:8000", help="of the server")
    parser.add_argument("--out", type=Path, default=HERE, help="folder; %(default)s")
    options = parser.parse_args(arguments)
    trace = ask(options.url)
    print(trace.to_pandas()[["token", "base_logprob", "controlled_logprob", "kl"]].head(8))
    html = page(trace)
    (options.out / "strip.html").write_text(html)
    if CHROMIUM:
        draw(html, options.out / "strip.png")


if __name__ == "__main__":
    main()
