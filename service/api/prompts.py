"""Prompts of routes: text and chat are encoded as token ids, token ids are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from service.errors import BadRequestError, echo


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts as the served model's own routes do."""

    tokenizer: Any
    """vLLM's tokenizer, which has ``max_chars_per_token``."""
    chat_template: str | None
    """The operator's chat template; None for the model's own."""
    max_tokens: int
    """Most tokens of a prompt."""

    def encode(self, prompt: str | Sequence[Mapping[str, str]], param: str) -> list[int]:
        """Return a prompt's token ids.

        Args:
            prompt: a text, encoded without a template; or messages, rendered by the chat
                template. A last message of the assistant is continued; after any other message a
                new one of the assistant begins.
            param: the field that an error names.

        Raises:
            BadRequestError: no tokens, too many tokens, or the chat template refuses the chat.

        """
        if isinstance(prompt, str):
            self._check_length(prompt, param)
            token_ids: list[int] = self.tokenizer.encode(prompt)
        else:
            token_ids = self._encode_chat(list(prompt), param)
        if not 0 < len(token_ids) <= self.max_tokens:
            raise BadRequestError(
                f"a prompt of {len(token_ids)} tokens; allowed: 1 to {self.max_tokens}", param
            )
        return token_ids

    def continuation(self, text: str, param: str = "text") -> list[int]:
        """Return the token ids of a text, without special tokens around it.

        Raises:
            BadRequestError: the text is too long.

        """
        self._check_length(text, param)
        token_ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return token_ids

    def _check_length(self, text: str, param: str) -> None:
        """Refuse a text that must have too many tokens, before the slow tokenization."""
        most = self.max_tokens * self.tokenizer.max_chars_per_token
        if len(text) > most:
            raise BadRequestError(
                f"{len(text)} characters are more than {self.max_tokens} tokens; allowed: {most}",
                param,
            )

    def _encode_chat(self, messages: list[Mapping[str, str]], param: str) -> list[int]:
        speaks = messages[-1]["role"] == "assistant"
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=not speaks,
                continue_final_message=speaks,
            )
        except (ValueError, TemplateError) as error:
            raise BadRequestError(f"the chat template refuses: {str(error)[:200]}", param) from None
        self._check_length(text, param)
        token_ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return token_ids


def check_tokens(token_ids: Sequence[int], vocab_size: int, param: str) -> None:
    """Refuse ids that are not in the vocabulary; BadRequestError names the first one."""
    for at, token_id in enumerate(token_ids):
        if token_id >= vocab_size:
            check_token(token_id, vocab_size, f"{param}[{at}]")


def check_token(token_id: int, vocab_size: int, param: str) -> None:
    """Refuse an id that is not in the vocabulary.

    Raises:
        BadRequestError: names ``param``.

    """
    if token_id >= vocab_size:
        raise BadRequestError(
            f"{echo(token_id)} is no token; allowed: 0 to {vocab_size - 1}", param
        )
