"""The vocabulary as bytes: the bytes that each token adds to the generated text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FOLD = bytes.maketrans(bytes(range(65, 91)), bytes(range(97, 123)))


def fold_ascii(data: bytes) -> bytes:
    """Return ``data`` with A-Z made lower case and nothing else touched."""
    return data.translate(_FOLD)


@dataclass(frozen=True)
class SortedTokens:
    """Tokens in byte order, so that those sharing a prefix are one range of ``ids``."""

    keys: list[bytes]
    ids: NDArray[np.int64]  # [len(keys)]

    @classmethod
    def of(cls, tokens: Sequence[bytes]) -> SortedTokens:
        """Sort ``tokens`` (index = token id); empty ones are left out."""
        order = sorted((i for i, token in enumerate(tokens) if token), key=tokens.__getitem__)
        return cls([tokens[i] for i in order], np.array(order, np.int64))

    def starting_with(self, prefix: bytes) -> NDArray[np.int64]:
        """Return the ids of the tokens that begin with ``prefix`` (not empty)."""
        low = bisect_left(self.keys, prefix)
        # The first string past every extension of the prefix; 0xff has no successor byte.
        stem = prefix.rstrip(b"\xff")
        end = len(self.keys)
        if stem:
            end = bisect_left(self.keys, stem[:-1] + bytes([stem[-1] + 1]), low)
        return self.ids[low:end]

    def equal_to(self, token: bytes) -> NDArray[np.int64]:
        """Return the ids of the tokens that are exactly ``token``."""
        low = bisect_left(self.keys, token)
        return self.ids[low : bisect_left(self.keys, token + b"\x00", low)]


@dataclass(frozen=True)
class Index:
    """Prefix, suffix and substring look-ups over one spelling of the vocabulary."""

    tokens: Sequence[bytes]

    def prepare(self) -> None:
        """Compute the tables of the look-ups, which otherwise the first look-up does."""
        _ = self.forward, self.backward, self.spellings, self.longest, self._ends, self._joined

    @cached_property
    def forward(self) -> SortedTokens:
        """The tokens in byte order."""
        return SortedTokens.of(self.tokens)

    @cached_property
    def backward(self) -> SortedTokens:
        """The reversed tokens in byte order."""
        return SortedTokens.of([token[::-1] for token in self.tokens])

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        return max(map(len, self.tokens), default=0)

    @cached_property
    def spellings(self) -> frozenset[bytes]:
        """The distinct byte strings of all tokens."""
        return frozenset(self.forward.keys)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(token) for token in self.tokens], dtype=np.int64)

    @cached_property
    def _joined(self) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(self.tokens), np.uint8)

    def containing(self, needle: bytes) -> NDArray[np.int64]:
        """Return the ids of the tokens that hold ``needle`` (not empty), ascending."""
        if len(needle) > self.longest:
            return np.zeros(0, np.int64)
        starts = np.flatnonzero(self._joined[: len(self._joined) - len(needle) + 1] == needle[0])
        for offset in range(1, len(needle)):
            starts = starts[self._joined[starts + offset] == needle[offset]]
        ids = np.searchsorted(self._ends, starts, side="right")
        # A hit that runs past the end of its token lies across a seam of the joined bytes.
        return np.unique(ids[starts + len(needle) <= self._ends[ids]])


@dataclass(frozen=True)
class Vocabulary:
    """Every token's bytes.

    ``tokens[id]`` are the token's bytes; ``special`` holds the ids of control tokens (end of
    turn, padding), which are not text: matching ignores them.
    ``width`` is the number of logits, at least ``len(tokens)`` (models pad it).
    """

    tokens: Sequence[bytes]
    special: frozenset[int] = frozenset()
    width: int = 0
    _text_tokens: list[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", max(self.width, len(self.tokens)))
        text = [b"" if i in self.special else token for i, token in enumerate(self.tokens)]
        object.__setattr__(self, "_text_tokens", text)

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, width: int) -> Vocabulary:
        """Read the bytes of a Hugging Face tokenizer's tokens; ``width`` as in the class."""
        import xgrammar

        size = min(len(tokenizer), width)
        decoded = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size)
        tokens = list(decoded.decoded_vocab)
        special = _special_ids(tokenizer, size)
        for token_id in special:
            tokens[token_id] = str(tokenizer.convert_ids_to_tokens(token_id)).encode()
        return cls(tokens, special, width)

    def text_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token adds to the text: none for control tokens.

        None either for -1, the id of a token that is not generated yet.
        """
        known = 0 <= token_id < len(self._text_tokens)
        return self._text_tokens[token_id] if known else b""

    def index(self, *, ignore_case: bool) -> Index:
        """Return the look-up structure of the plain or the case-folded vocabulary."""
        return self._folded if ignore_case else self._plain

    @cached_property
    def _plain(self) -> Index:
        return Index(self._text_tokens)

    @cached_property
    def _folded(self) -> Index:
        return Index([fold_ascii(token) for token in self._text_tokens])


def _special_ids(tokenizer: Any, size: int) -> frozenset[int]:
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    marked: Collection[int] = {i for i, token in added.items() if token.special}
    return frozenset(i for i in {*tokenizer.all_special_ids, *marked} if i < size)
