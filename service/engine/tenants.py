"""Keeping tenants apart in the prefix cache: none learns by time or count what another asked.

What a prompt shares with earlier ones comes out of the cache sooner, and an answer may say how
many tokens did. So the salt of each request of a tenant, on any route, is made of the tenant's
name, chained with the salt that the request has already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.engine.cache_salt import salt_of
from service.engine.engine import Generate, Outputs


class TenantSalt:
    """Step that salts a request with its tenant.

    Args:
        tenant: returns the tenant whose request the running task works on, or None.
        key: the engine's secret.

    """

    def __init__(self, tenant: Callable[[], str | None], key: bytes) -> None:
        self._tenant = tenant
        self._key = key

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate out of a prefix cache that knows the tenants."""
        # A prompt that is no mapping is sound that still comes, which has no blocks to share.
        if (name := self._tenant()) is not None and isinstance(prompt, Mapping):
            salt = salt_of(self._key, "tenant", name, prompt.get("cache_salt"))
            prompt = {**prompt, "cache_salt": salt}
        return generate(prompt, params, *args, **kwargs)
