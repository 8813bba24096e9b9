"""Keeping tenants apart in the prefix cache: none learns by time or count what another asked.

What a prompt shares with earlier ones comes out of the cache sooner, and an answer may say how
many tokens did. So the salt of each request of a tenant, on whatever route, is made of the
tenant's name, chained with the salt that the request has already.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from service.engine.cache_salt import salt_of


def keep_apart(engine: Any, tenant: Callable[[], str | None], key: bytes) -> None:
    """Have vLLM's engine client generate out of a prefix cache that knows the tenants.

    Args:
        engine: the client that all routes share, vLLM's own included.
        tenant: tells whose request is being worked on, None for nobody's.
        key: the engine's secret.

    """
    stock = engine.generate

    def generate(prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        # What is no mapping is sound that still comes, which has no blocks to share.
        if (name := tenant()) is not None and isinstance(prompt, Mapping):
            salt = salt_of(key, "tenant", name, prompt.get("cache_salt"))
            prompt = {**prompt, "cache_salt": salt}
        generator: AsyncGenerator[Any, None] = stock(prompt, *args, **kwargs)
        return generator

    engine.generate = generate
