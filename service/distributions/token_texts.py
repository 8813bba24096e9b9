"""The texts of tokens in an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import cast

import numpy as np
import orjson
from numpy.typing import NDArray

from logit_processors.vocabulary import Vocabulary
from service.distributions.token_names import different_names
from service.schemas.vector_answers import TokenTextsAnswer


class TokenTexts:
    """The bytes, text and name of tokens, and their JSON, which is encoded once per token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._fragments: list[bytes | None] = [None] * vocabulary.width
        self._keys: list[bytes | None] = [None] * vocabulary.width
        self._decoded: list[bytes | None] = [None] * vocabulary.width
        datas = [self.data(token_id) for token_id in range(vocabulary.width)]
        self.all = [data.decode(errors="replace") for data in datas]
        """The text of each logit, empty for one that is no token; U+FFFD for bytes that are no
        character."""
        self.names = different_names(datas)
        """A distinct name for each logit."""
        whole = [text.encode() == data for text, data in zip(self.all, datas, strict=True)]
        self.is_whole: NDArray[np.bool_] = np.array(whole, np.bool_)
        """True for each logit whose bytes are whole characters, ``[width]``."""
        self.special = vocabulary.special
        """Control tokens, which an answer's text may leave out."""

    def text(self, token_id: int) -> str:
        """Return the token's text."""
        return self.all[token_id]

    @cached_property
    def listed(self) -> bytes:
        """``{"object":"list","data":[text, …]}``, a text for each token that exists."""
        texts = self.all[: len(self._vocabulary.tokens)]
        return orjson.dumps(TokenTextsAnswer(object="list", data=texts))

    def fragments(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return ``},{"token":…,"bytes":[…],"logprob":`` of tokens, between two numbers."""
        return _known(self._fragments, self._make_fragment, token_ids)

    def keys(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return ``,"name":`` of tokens, for an object whose keys are their names."""
        return _known(self._keys, lambda at: b",%s:" % orjson.dumps(self.names[at]), token_ids)

    def decoded(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return ``,"decoded_token":"text"}`` of tokens, the end of vLLM's object."""
        return _known(self._decoded, lambda at: decoded_end(self.all[at]), token_ids)

    def id_fragments(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return :meth:`fragments` of tokens, with ``token_id:…`` instead of the text."""
        named = zip(token_ids, self.fragments(token_ids), strict=True)
        # Quotes inside a JSON string are escaped, so the last match is the key.
        return [
            b'},{"token":"token_id:%d","bytes":%s' % (token_id, json.rpartition(b',"bytes":')[2])
            for token_id, json in named
        ]

    def _make_fragment(self, token_id: int) -> bytes:
        data = self.data(token_id)
        text = orjson.dumps(data.decode(errors="replace"))
        return b'},{"token":%s,"bytes":%s,"logprob":' % (text, orjson.dumps(list(data)))

    def data(self, token_id: int) -> bytes:
        """Return the token's bytes; none for a logit that is no token."""
        tokens = self._vocabulary.tokens
        return tokens[token_id] if token_id < len(tokens) else b""


def decoded_end(text: str) -> bytes:
    """Return ``,"decoded_token":"text"}`` of a text."""
    return b',"decoded_token":%s}' % orjson.dumps(text)


def _known(
    known: list[bytes | None], make: Callable[[int], bytes], token_ids: Sequence[int]
) -> list[bytes]:
    """Return the cached values of tokens; compute the missing ones."""
    found = list(map(known.__getitem__, token_ids))
    if None in found:
        for at, token_id in enumerate(token_ids):
            if found[at] is None:
                found[at] = known[token_id] = make(token_id)
    return cast(list[bytes], found)
