"""Large JSON bodies: how many values one may have, found before it is parsed.

To parse is one call, which nothing interrupts: what takes it long is many values, and not a long
text.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from service.errors import BadRequestError

LARGE = 256 << 10
"""Bytes from which a body is looked at."""
MAX_COMMAS = 1 << 20
"""Outside of texts: as many values, tokens of prompts among them, has a body at most."""
MAX_TOKENIZED_BYTES = 1 << 20
"""Bytes of a body to tokenize: no context bounds its tokens, and one answer holds all of them."""
_AT_ONCE = 64 << 10
_IN_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


def check_size(data: bytes) -> Iterator[bytes]:
    """Look through a body, and pause often; what is yielded is empty.

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
    """Return where a text has ended that began before ``at``."""
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
    """Refuse a body of so many bytes if its path is that of tokenization.

    Raises:
        BadRequestError: it is too large for it.

    """
    if path.endswith("/tokenize") and size > MAX_TOKENIZED_BYTES:
        raise BadRequestError(
            f"{size} bytes are too many to make tokens of; allowed: {MAX_TOKENIZED_BYTES}", "body"
        )
