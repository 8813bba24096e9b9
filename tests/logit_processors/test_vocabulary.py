"""The vocabulary's look-ups against a walk through every token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logit_processors.vocabulary import Index, SortedTokens, Vocabulary, fold_ascii

# Few bytes, so that prefixes and repeats are common; 0xff has no successor byte.
strings = st.binary(max_size=5).map(lambda data: bytes(b"ab\xfe\xff"[byte % 4] for byte in data))
needles = strings.filter(bool)
vocabularies = st.lists(strings, max_size=12)


def walk(tokens: list[bytes], holds: Callable[[bytes], bool]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token and holds(token)]


@given(vocabularies, needles)
def test_look_ups_find_what_a_walk_finds(tokens: list[bytes], needle: bytes) -> None:
    sorted_tokens = SortedTokens.of(tokens)
    starting = sorted(sorted_tokens.starting_with(needle).tolist())
    equal = sorted(sorted_tokens.equal_to(needle).tolist())
    assert starting == walk(tokens, lambda token: token.startswith(needle))
    assert equal == walk(tokens, lambda token: token == needle)
    index = Index(tokens)
    assert index.containing(needle).tolist() == walk(tokens, lambda token: needle in token)
    ending = sorted(index.backward.starting_with(needle[::-1]).tolist())
    assert ending == walk(tokens, lambda token: token.endswith(needle))


@given(st.binary())
def test_folding_touches_ascii_letters_only(data: bytes) -> None:
    assert fold_ascii(data) == bytes(b + 32 if 65 <= b <= 90 else b for b in data)


def test_folding_keeps_other_letters() -> None:
    assert fold_ascii("ÀÉ Ǆ AZ az @[".encode()) == "ÀÉ Ǆ az az @[".encode()


def test_control_tokens_are_not_text() -> None:
    vocabulary = Vocabulary([b"a", b"<end>", b"A", b""], frozenset({1}))
    assert [vocabulary.text_bytes(i) for i in range(4)] == [b"a", b"", b"A", b""]
    assert vocabulary.tokens[1] == b"<end>"
    assert vocabulary.index(ignore_case=False).containing(b"end").tolist() == []
    assert vocabulary.index(ignore_case=True).containing(b"a").tolist() == [0, 2]


def test_padding_beyond_the_last_token_is_not_text() -> None:
    vocabulary = Vocabulary([b"a", b"b"], width=8)
    assert (len(vocabulary), vocabulary.width) == (2, 8)
    assert vocabulary.text_bytes(2) == b""
    assert vocabulary.text_bytes(7) == b""
    assert Vocabulary([b"a", b"b"]).width == 2


def test_a_placeholder_of_a_token_to_come_is_not_text() -> None:
    # vLLM's asynchronous scheduling writes -1 where a token is not known yet.
    assert Vocabulary([b"a", b"b"]).text_bytes(-1) == b""


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: é is two bytes, each a token, and both together one more."""
    pieces = ["a", "Ġa", "Ã", "©", "Ã©", "Ċ"]
    model = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("Ã", "©")])
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")
    made.add_tokens(["ordinary"])
    return made


def test_tokens_of_a_tokenizer_are_read_as_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 16)
    written = [b"a", b" a", b"\xc3", b"\xa9", "é".encode(), b"\n", b"<end>", b"ordinary"]
    assert list(vocabulary.tokens) == written
    assert vocabulary.special == {6}
    assert vocabulary.width == 16
    assert vocabulary.text_bytes(6) == b""
    assert vocabulary.text_bytes(7) == b"ordinary"


def test_a_model_may_have_fewer_logits_than_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 5)
    assert (len(vocabulary), vocabulary.width) == (5, 5)
    assert vocabulary.special == frozenset()


def test_ids_are_int64_so_that_torch_can_index_with_them() -> None:
    index = Index([b"a", b"ab"])
    assert index.containing(b"zz").dtype == np.int64
    assert index.forward.starting_with(b"a").dtype == np.int64
