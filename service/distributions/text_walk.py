"""The characters that each token adds to a text, and their offset in it."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence
from typing import NamedTuple

from service.distributions.token_texts import TokenTexts

_CHARACTER = 4
"""Bytes of the longest character, and the most tokens that one can take."""


class Placed(NamedTuple):
    """A token in its text.

    A token that ends inside a character has no text: the token that completes the character gets
    all of it, as in a stream. All of these tokens have the offset of that text.
    """

    token_id: int
    text: str
    offset: int
    """Characters of the text before it."""
    begun: bytes
    """Bytes before it that have no text yet."""


class TextWalk:
    """Follows one text, token by token.

    Args:
        texts: the texts of tokens.
        skips_special: whether the text leaves control tokens out.

    """

    def __init__(self, texts: TokenTexts, *, skips_special: bool) -> None:
        self._texts = texts
        self._skips_special = skips_special
        self._begun = b""
        self._offset = 0

    def branch(self) -> TextWalk:
        """Return an independent copy of the walk."""
        branch = TextWalk(self._texts, skips_special=self._skips_special)
        branch._begun, branch._offset = self._begun, self._offset
        return branch

    def follow(self, token_ids: Sequence[int]) -> None:
        """Pass tokens that are not in the text, but may have begun a character of it."""
        for token_id in token_ids[-_CHARACTER:]:
            self._write(token_id)

    def step(self, token_id: int) -> Placed:
        """Add a generated token."""
        begun = self._begun
        if self._skips_special and token_id in self._texts.special:
            return Placed(token_id, self._texts.all[token_id], self._offset, begun)
        placed = Placed(token_id, self._write(token_id), self._offset, begun)
        self._offset += len(placed.text)
        return placed

    def along(self, token_ids: Sequence[int], text: str) -> list[Placed]:
        """Add a whole prompt, whose text may differ from that of its tokens.

        A tokenizer may put control tokens and a space in front of a text, or change characters.
        """
        start, placed = self._offset, []
        for token_id in token_ids:
            begun = self._begun
            written = self._write(token_id)
            placed.append(Placed(token_id, written, self._offset, begun))
            at = self._offset - start
            if not text.startswith(written, at):
                if token_id in self._texts.special:
                    continue
                if text.startswith(written[1:], at) and written.startswith(" "):
                    written = written[1:]
            self._offset = start + min(at + len(written), len(text))
        self._offset = start + len(text)
        return placed

    def _write(self, token_id: int) -> str:
        """Return the text of a token after what was begun."""
        if not self._begun and self._texts.is_whole[token_id]:
            return self._texts.all[token_id]
        data = self._begun + self._texts.data(token_id)
        text = _text_of(data)
        self._begun = b"" if text else data
        return text


def text_after(begun: bytes, data: bytes) -> str:
    """Return the text of a token's bytes after the bytes of a character that was begun."""
    return _text_of(begun + data)


def _text_of(data: bytes) -> str:
    """Return the text of bytes, none if they end inside of a character."""
    text, read = utf_8_decode(data, "replace", False)
    return text if read == len(data) else ""
