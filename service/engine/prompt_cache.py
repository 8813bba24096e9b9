"""The prefix cache for prompts with rows: it serves what comes before the first row, no more.

Tokens out of the prefix cache pass no layer and have no row. vLLM's remedy is not to read the
cache at all for a prompt with logprobs; here only as far as rows are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.engine.prompt_rows import first_row_of, prompt_spec_of


class ShorterRequest:
    """A scheduler's request that seems to have fewer tokens than it has."""

    def __init__(self, request: Any, num_tokens: int) -> None:
        self._request = request
        self.num_tokens = num_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def up_to_first_row(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``KVCacheManager.get_computed_blocks``, which looks no further than the first row."""

    def get_computed_blocks(self: Any, request: Any) -> Any:
        params = request.sampling_params
        if params is not None and prompt_spec_of(params) is not None:
            # vLLM computes the last token always, so that one comes after what may be cached.
            tokens = min(first_row_of(params) + 1, request.num_tokens)
            request = ShorterRequest(request, tokens)
        return stock(self, request)

    return get_computed_blocks
