"""Distinct names for the tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence


def different_names(tokens: Sequence[bytes]) -> list[str]:
    r"""Return a distinct name for each token.

    A name is the token's text; ``bytes:\xe2\x89``, as in OpenAI's API, if its bytes are no
    whole characters or the text is another token's name; ``token_id:5`` if it has no bytes or
    another token has the same bytes.

    Args:
        tokens: the bytes of each token, by token id.

    """
    names = [""] * len(tokens)
    taken: set[str] = set()
    # From the end: if a vocabulary has a text twice, the first token is a byte fallback token.
    for token_id in reversed(range(len(tokens))):
        data = tokens[token_id]
        name = _text(data) or _spelled(data)
        if name in taken:
            name = _spelled(data)
        if not data or name in taken:
            name = f"token_id:{token_id}"
        taken.add(name)
        names[token_id] = name
    return names


def _text(data: bytes) -> str:
    """Return the text of bytes, none if they are not whole characters."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""


def _spelled(data: bytes) -> str:
    return "bytes:" + repr(data)[2:-1]
