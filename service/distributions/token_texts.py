"""What tokens look like in an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import orjson

from logit_processors.vocabulary import Vocabulary


class TokenTexts:
    """The bytes and text of tokens, and JSON that is made once for each."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._fragments: list[bytes | None] = [None] * vocabulary.width
        datas = map(self.data, range(vocabulary.width))
        self.all = [data.decode(errors="replace") for data in datas]
        """The text of each logit, empty for one that is no token; U+FFFD for bytes that are no
        character."""

    def text(self, token_id: int) -> str:
        """Return the token's text."""
        return self.all[token_id]

    @cached_property
    def listed(self) -> bytes:
        """``{"object":"list","data":[text, …]}``, a text for each token that exists."""
        return orjson.dumps({"object": "list", "data": self.all[: len(self._vocabulary.tokens)]})

    def fragments(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return ``},{"token":…,"bytes":[…],"logprob":`` of tokens, between two numbers."""
        known = self._fragments.__getitem__
        found = list(map(known, token_ids))
        if None in found:
            for token_id in token_ids:
                if known(token_id) is None:
                    self._fragments[token_id] = self._make_fragment(token_id)
            found = list(map(known, token_ids))
        return cast(list[bytes], found)

    def id_fragments(self, token_ids: Sequence[int]) -> list[bytes]:
        """Return what :meth:`fragments` does with ``token_id:…`` in place of each text."""
        named = zip(token_ids, self.fragments(token_ids), strict=True)
        # Within a text no quote stands as it is.
        return [
            b'},{"token":"token_id:%d","bytes":%s' % (token_id, told.rpartition(b',"bytes":')[2])
            for token_id, told in named
        ]

    def _make_fragment(self, token_id: int) -> bytes:
        data = self.data(token_id)
        text = orjson.dumps(data.decode(errors="replace"))
        return b'},{"token":%s,"bytes":%s,"logprob":' % (text, orjson.dumps(list(data)))

    def data(self, token_id: int) -> bytes:
        """Return the token's bytes; none for a logit that is no token."""
        tokens = self._vocabulary.tokens
        return tokens[token_id] if token_id < len(tokens) else b""
