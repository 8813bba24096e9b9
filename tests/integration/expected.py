"""What control must do, written a second time and naively: numpy, and text as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logit_processors.vocabulary import Vocabulary

Row = NDArray[np.float64]


def log_softmax(logits: Row) -> Row:
    """Normalise one row."""
    highest = logits.max()
    normalised: Row = logits - highest - np.log(np.exp(logits - highest).sum())
    return normalised


def matched(text: bytes, pattern: bytes) -> int:
    """Return how many first bytes of the pattern the text ends with, all of them excluded."""
    sizes = range(min(len(pattern) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(pattern[:size])), 0)


def occurs_anew(text: bytes, token: bytes, pattern: bytes) -> bool:
    """Say whether the token completes an occurrence of the pattern."""
    tail = text[len(text) - (len(pattern) - 1) :] if len(pattern) > 1 else b""
    return pattern in (text if len(text) < len(pattern) else tail) + token


def set_of(text: bytes, entry: dict[str, Any], vocabulary: Vocabulary, *, bias: bool) -> list[int]:
    """Return the tokens that a text entry touches after ``text``."""
    pattern = entry["text"].encode()
    fold = bool(entry.get("ignore_case"))
    if fold:
        text, pattern = text.lower(), pattern.lower()
    # Only the last bytes matter, and few of them: the same question comes often.
    tail = text[len(text) - min(len(text), len(pattern)) :]
    return _set_after(tail, pattern, fold, bias, vocabulary)


_known: dict[tuple[bytes, bytes, bool, bool], list[int]] = {}


def _set_after(
    text: bytes, pattern: bytes, fold: bool, bias: bool, vocabulary: Vocabulary
) -> list[int]:
    key = (text, pattern, fold, bias)
    if key in _known:
        return _known[key]
    leading = len(pattern) - len(pattern.lstrip()) if pattern.strip() else 0
    before = max(matched(text, pattern), leading)
    touched = []
    for token_id in range(vocabulary.width):
        token = vocabulary.text_bytes(token_id)
        token = token.lower() if fold else token
        if not token:
            continue
        hit = occurs_anew(text, token, pattern)
        if hit or (bias and matched(text + token, pattern) > before):
            touched.append(token_id)
    return _known.setdefault(key, touched)


def covers(entry: dict[str, Any], position: int) -> bool:
    """Say whether an entry's window covers a position."""
    when = entry.get("when") or {}
    until = when.get("until")
    return when.get("from", 0) <= position and (until is None or position < until)


def controlled(
    base: Row,
    control: dict[str, Any],
    generated: list[int],
    vocabulary: Vocabulary,
    scores: dict[str, Row],
) -> Row:
    """Return the controlled log-probabilities from the base ones.

    ``scores`` are the vectors' standardised token scores by name.
    """
    position, logits = len(generated), base.copy()
    text = b"".join(vocabulary.text_bytes(token) for token in generated)
    for entry in control.get("bias", ()):
        if covers(entry, position):
            token_ids = (
                [entry["token_id"]]
                if "token_id" in entry
                else set_of(text, entry, vocabulary, bias=True)
            )
            logits[token_ids] += entry["add"]
    for entry in control.get("steer", ()):
        if covers(entry, position):
            logits += entry["strength"] * scores[entry["vector"]]
    for entry in control.get("suppress", ()):
        if covers(entry, position):
            token_ids = (
                [entry["token_id"]]
                if "token_id" in entry
                else set_of(text, entry, vocabulary, bias=False)
            )
            logits[token_ids] = -np.inf
    return log_softmax(logits)
