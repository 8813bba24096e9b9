"""A step that claims the memory of a prompt's rows once its length is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.engine.engine import Generate, Outputs
from service.errors import BadRequestError


class PromptClaims:
    """A step of one request whose prompt has rows.

    Args:
        claim: claims the memory of a prompt of so many tokens, or raises.

    """

    def __init__(self, claim: Callable[[int], None]) -> None:
        self._claim = claim

    def __call__(self, generate: Generate, prompt: Any, *args: Any, **kwargs: Any) -> Outputs:
        """Claim the memory and generate; raise the errors of the claim."""
        tokens = prompt.get("prompt_token_ids")
        if tokens is None:
            raise BadRequestError("a prompt of embeddings has no tokens and no rows", "prompt")
        self._claim(len(tokens))
        return generate(prompt, *args, **kwargs)
