"""Separate prefix cache entries per tenant, so that no tenant can detect another's prompts.

Tokens from the cache are faster, and an answer may count them. So the salt of each request of a
tenant, on any route, is a hash of the tenant's name and the request's own salt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.engine.cache_salt import salt_of
from service.engine.engine import Generate, Outputs


class TenantSalt:
    """A step that salts a request with its tenant.

    Args:
        tenant: returns the tenant of the running task's request, or None.
        key: the engine's secret.

    """

    def __init__(self, tenant: Callable[[], str | None], key: bytes) -> None:
        self._tenant = tenant
        self._key = key

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate with a cache salt that includes the tenant."""
        # Streamed audio input is not a mapping and has no cached blocks.
        if (name := self._tenant()) is not None and isinstance(prompt, Mapping):
            salt = salt_of(self._key, "tenant", name, prompt.get("cache_salt"))
            prompt = {**prompt, "cache_salt": salt}
        return generate(prompt, params, *args, **kwargs)
