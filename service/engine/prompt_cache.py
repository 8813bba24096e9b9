"""The prefix cache for prompts with rows: only tokens before the first row are read from it.

Tokens from the prefix cache pass no layer and have no row. vLLM does not read the cache at all for
a prompt with logprobs; here it is read up to the first wanted row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.engine.prompt_rows import first_row_of, prompt_spec_of


class ShorterRequest:
    """A scheduler's request that reports fewer tokens than it has."""

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
            # + 1: vLLM never reads a request's last token from the cache.
            tokens = min(first_row_of(params) + 1, request.num_tokens)
            request = ShorterRequest(request, tokens)
        return stock(self, request)

    return get_computed_blocks
