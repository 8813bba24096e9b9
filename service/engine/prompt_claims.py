"""An engine client that claims the memory of a prompt's rows once its length is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from service.errors import BadRequestError


class PromptClaims:
    """vLLM's engine client for one request whose prompt has rows.

    Args:
        engine: the client.
        claim: claims the memory of a prompt of so many tokens, or raises.

    """

    def __init__(self, engine: Any, claim: Callable[[int], None]) -> None:
        self._engine = engine
        self._claim = claim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Claim and generate; raises as the claim does."""
        tokens = prompt.get("prompt_token_ids")
        if tokens is None:
            raise BadRequestError("a prompt of embeddings has no tokens to tell of", "prompt")
        self._claim(len(tokens))
        generator: AsyncGenerator[Any, None] = self._engine.generate(prompt, *args, **kwargs)
        return generator
