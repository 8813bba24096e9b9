"""Prompts that routes of our own take, text or chat, as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from service.errors import BadRequestError


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts as the served model's own routes do."""

    tokenizer: Any
    chat_template: str | None
    """The operator's, if not the model's own."""
    max_tokens: int
    """Most tokens of a prompt."""

    def encode(self, prompt: str | Sequence[Mapping[str, str]], param: str) -> list[int]:
        """Return a prompt's token ids.

        Args:
            prompt: a text, taken as it is; or messages, put into the chat template. An
                assistant's last message is left open, after any other one the assistant begins.
            param: what an error blames.

        Raises:
            BadRequestError: no tokens, too many, or a chat that has no template.

        """
        if isinstance(prompt, str):
            token_ids: list[int] = self.tokenizer.encode(prompt)
        else:
            token_ids = self._encode_chat(list(prompt), param)
        if not 0 < len(token_ids) <= self.max_tokens:
            raise BadRequestError(
                f"a prompt of {len(token_ids)} tokens; allowed: 1 to {self.max_tokens}", param
            )
        return token_ids

    def continuation(self, text: str) -> list[int]:
        """Return the tokens of a text that goes on, without special tokens around it."""
        token_ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return token_ids

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
        token_ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return token_ids
