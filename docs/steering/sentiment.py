"""How far a vector made of eight pairs moves a model's text: `python docs/steering/sentiment.py`.

Makes the vector over HTTP on a running server, continues fifty prompts under it at five
strengths, counts words of a small lexicon, and writes sentiment.json and sentiment.png
beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
LAYERS = [14]
TOKENS = 40
PAIRS = [
    ("I feel happy about this, it is", "I feel sad about this, it is"),
    ("What a wonderful day this has been,", "What a terrible day this has been,"),
    ("She loved the movie because it was", "She hated the movie because it was"),
    ("The food was delicious and the staff were", "The food was disgusting and the staff were"),
    ("Everyone agreed it was a great success and", "Everyone agreed it was a bad failure and"),
    ("He smiled with joy and said", "He frowned with anger and said"),
    ("The trip was beautiful and we enjoyed", "The trip was awful and we regretted"),
    ("I am grateful for the kind people who", "I am bitter about the cruel people who"),
]
SUBJECTS = (
    "my neighbor", "the new teacher", "this restaurant", "our holiday", "the book",
    "my job", "the weather today", "that concert", "the hotel", "my first car",
)  # fmt: skip
OPENINGS = (
    "Let me tell you about {}. I think",
    "When I remember {}, I feel",
    "Here is my review of {}:",
    "My friend asked me about {} and I said that",
    "To describe {} in a few words:",
)
_GOOD = """
good great wonderful amazing excellent happy love loved loving lovely beautiful best enjoy
enjoyed enjoying fun nice kind joy perfect fantastic delightful pleasant friendly warm
delicious brilliant success successful proud grateful thankful excited exciting smile
smiled comfortable helpful incredible favorite glad charming fresh peaceful hope hopeful
inspiring impressed impressive special sweet cozy welcoming unique stunning
"""
_BAD = """
bad terrible awful horrible sad hate hated worst poor ugly boring disappointed
disappointing disappointment angry anger cruel pain painful fear afraid scared dark cold
dirty disgusting failure failed wrong problem problems difficult hard sick tired lonely
alone cry cried crying regret bitter broken lost dead death hurt worried worry nervous
upset unhappy annoying frustrated frustrating miserable guilty rude lazy useless
"""
POSITIVE = frozenset(_GOOD.split())
NEGATIVE = frozenset(_BAD.split())


def prompts() -> list[str]:
    """Return fifty prompts that say nothing good or bad."""
    return [opening.format(subject) for opening in OPENINGS for subject in SUBJECTS]


def score(texts: list[str]) -> float:
    """Return positive minus negative words in a hundred."""
    words = [word for text in texts for word in re.findall("[a-z]+", text.lower())]
    good = sum(word in POSITIVE for word in words)
    bad = sum(word in NEGATIVE for word in words)
    return 100 * (good - bad) / len(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    client = httpx.Client(base_url=options.url, timeout=600)
    model = client.get("/v1/models").json()["data"][0]["id"]
    contrast = {
        "positive": [positive for positive, _ in PAIRS],
        "negative": [negative for _, negative in PAIRS],
        "layers": LAYERS,
    }
    body = {"name": "cheerful", "from": {"contrast": contrast}, "replace": True}
    client.post("/v1/vectors", json=body).raise_for_status()

    def continued(prompt: str, strength: float) -> str:
        steer = {"vector": "cheerful", "strength": strength, "at": "residual"}
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": TOKENS,
            "temperature": 0,
            "logit_control": {"steer": [steer]},
        }
        answer: dict[str, Any] = client.post("/v1/completions", json=body).raise_for_status().json()
        return str(answer["choices"][0]["text"])

    found = []
    with ThreadPoolExecutor(16) as pool:
        for strength in STRENGTHS:
            texts = list(pool.map(lambda prompt, s=strength: continued(prompt, s), prompts()))
            found.append({"strength": strength, "score": score(texts), "first": texts[0]})
            print(f"{strength:+.0f}  {found[-1]['score']:6.2f}  {texts[0][:90]!r}")
    (options.out / "sentiment.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, options.out / "sentiment.png")


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw the score by strength."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.8", linewidth=1)
    axes.plot([each["strength"] for each in found], [each["score"] for each in found], marker="o")
    axes.set_xlabel("strength of the vector")
    axes.set_ylabel("positive - negative words\nin a hundred")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
