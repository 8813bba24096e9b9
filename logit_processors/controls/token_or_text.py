"""Entries that name a token, or a text in any tokenization."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from logit_processors.control import WindowedEntry, check_generated
from logit_processors.patterns import MAX_PATTERN_BYTES, Automaton, Pattern


class TokenOrText(WindowedEntry):
    """An entry with one token or one text pattern."""

    token_id: int | None = Field(None, ge=0, lt=2**31, description="One token of the vocabulary.")
    text: str | None = Field(
        None, description="A text, matched on the generated text in any tokenization."
    )
    ignore_case: bool = Field(False, description="Fold ASCII letters when matching text.")

    @field_validator("text")
    @classmethod
    def _can_be_matched(cls, text: str | None) -> str | None:
        if text is None:
            return text
        if not text:
            raise ValueError("a text pattern must not be empty")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise ValueError("a text pattern must not hold a lone surrogate") from None
        if size > MAX_PATTERN_BYTES:
            raise ValueError(
                f"a pattern of {size} bytes is too long; allowed: {MAX_PATTERN_BYTES} bytes of "
                "UTF-8"
            )
        if "\ufffd" in text:
            raise ValueError("U+FFFD stands for bytes that are not text and cannot be matched")
        return text

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.token_id is None) == (self.text is None):
            raise ValueError("exactly one of token_id and text is required")
        if self.token_id is not None and self.ignore_case:
            raise ValueError("ignore_case applies to text, not to token_id")
        check_generated(self.when)
        return self

    def pattern(self, *, advancing: bool) -> Pattern:
        """Return the entry's text as a pattern of the tokens that complete it.

        Args:
            advancing: include the tokens that advance it.

        """
        assert self.text is not None
        return Pattern(Automaton.of(self.text, ignore_case=self.ignore_case), advancing)
