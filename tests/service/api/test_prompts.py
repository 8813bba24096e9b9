"""Prompts as token ids: texts as they are, chats through a template."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.tokenizers.hf import get_cached_tokenizer

from service.api.prompts import PromptEncoder, check_tokens
from service.embedded_model import embedded_model_dir
from service.errors import BadRequestError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return get_cached_tokenizer(AutoTokenizer.from_pretrained(embedded_model_dir()))


def test_a_text_is_taken_as_it_is(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, None, 100)
    text = "Hello <|im_start|>"
    assert encoder.encode(text, "p") == tokenizer.encode(text)


def test_a_chat_ends_where_the_assistant_speaks(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, None, 100)
    chat = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.decode(encoder.encode(chat, "p"))
    assert asked.endswith("<|im_start|>assistant\n")
    chat.append({"role": "assistant", "content": "I feel"})
    assert tokenizer.decode(encoder.encode(chat, "p")) == asked + "I feel"


def test_the_operators_template_comes_first(tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}"
    encoder = PromptEncoder(tokenizer, template, 100)
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.decode(encoder.encode(chat, "p")) == "user: Hi;"


def test_what_has_no_place(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, "{{ raise_exception('no chats') }}", 3)
    with pytest.raises(BadRequestError, match="no chats") as caught:
        encoder.encode([{"role": "user", "content": "Hi"}], "from.x[2]")
    assert caught.value.param == "from.x[2]"
    assert len(encoder.encode("a b c", "p")) == 3
    with pytest.raises(BadRequestError, match="4 tokens; allowed: 1 to 3"):
        encoder.encode("a b c d", "p")
    with pytest.raises(BadRequestError, match="0 tokens"):
        encoder.encode("", "p")


def test_a_text_of_too_many_characters_is_not_encoded(tokenizer: Any) -> None:
    class Unasked:
        max_chars_per_token = tokenizer.max_chars_per_token

        def encode(self, text: str, **_: Any) -> list[int]:
            raise AssertionError(text)

        def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
            return messages[0]["content"]

    encoder = PromptEncoder(Unasked(), None, 3)
    most = 3 * tokenizer.max_chars_per_token
    text = "a" * (most + 1)
    for refused in (
        partial(encoder.encode, text),
        partial(encoder.encode, [{"role": "user", "content": text}]),
        partial(encoder.continuation, text),
    ):
        with pytest.raises(BadRequestError, match=f"allowed: {most}") as caught:
            refused("p")
        assert caught.value.param == "p"
    assert PromptEncoder(tokenizer, None, 3).encode(" " * 3, "p")


def test_an_id_beyond_the_vocabulary_is_no_token() -> None:
    check_tokens([0, 9], 10, "tokens")
    with pytest.raises(BadRequestError) as caught:
        check_tokens([0, 10], 10, "tokens")
    assert caught.value.param == "tokens[1]"
    assert "10 is no token; allowed: 0 to 9" in str(caught.value)
