"""A limit on the values of a large JSON body, checked before it is parsed.

Parsing is one call that blocks the event loop. Its time grows with the number of values, not with
the length of strings.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from service.errors import BadRequestError

LARGE = 256 << 10
"""Bytes from which a body is scanned."""
MAX_COMMAS = 1 << 20
"""Most commas outside of strings: an upper bound on values, token ids of prompts included."""
MAX_TOKENIZED_BYTES = 1 << 20
"""Most bytes of a body for tokenization: its tokens have no context limit, and share one answer."""
_AT_ONCE = 64 << 10
_IN_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


def check_size(data: bytes) -> Iterator[bytes]:
    """Scan a body; yield empty bytes often, so that the caller can pause.

    Raises:
        BadRequestError: more values than a body may have.

    """
    if len(data) <= LARGE or data.count(b",") <= MAX_COMMAS:
        return
    commas = at = 0
    while at < len(data):
        start = data.find(b'"', at, at + _AT_ONCE)
        end = min(at + _AT_ONCE, len(data)) if start < 0 else start
        commas += data.count(b",", at, end)
        if commas > MAX_COMMAS:
            raise BadRequestError(
                f"the body has over {MAX_COMMAS} values; allowed: {MAX_COMMAS}, tokens of prompts "
                "among them",
                "body",
            )
        at = end
        if start >= 0:
            at = yield from _past_text(data, start + 1)
        yield b""


def _past_text(data: bytes, at: int) -> Generator[bytes, None, int]:
    """Return the end of a string that began before ``at``."""
    while at < len(data):
        found = _IN_TEXT.match(data, at, at + _AT_ONCE)
        assert found is not None
        at = found.end()
        if data[at : at + 1] == b'"':
            return at + 1
        if at == found.start():  # a backslash at the end of the body
            return at + 1
        yield b""
    return at


def check_tokenized(path: str, size: int) -> None:
    """Refuse a body that is too large for tokenization.

    Raises:
        BadRequestError: the path is that of tokenization and the body is too large.

    """
    if path.endswith("/tokenize") and size > MAX_TOKENIZED_BYTES:
        raise BadRequestError(
            f"{size} bytes are too many to make tokens of; allowed: {MAX_TOKENIZED_BYTES}", "body"
        )
