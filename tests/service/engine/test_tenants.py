"""Salts of tenants: equal for one, different for two, and on top of any other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from service.engine.engine import SensefieldEngine
from service.engine.tenants import TenantSalt


class Stock:
    """Remembers the prompt it was asked to continue."""

    def __init__(self) -> None:
        self.prompt: Any = None

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, priority: int
    ) -> AsyncGenerator[Any, None]:
        self.prompt = prompt
        yield params, request_id, priority


async def salt(tenant: str | None, key: bytes = b"the engine's own", **prompt: Any) -> Any:
    """Return the salt that reaches the engine."""
    stock = Stock()
    engine = SensefieldEngine(stock, [TenantSalt(lambda: tenant, key)])
    given = {"prompt_token_ids": [1, 2, 3], **prompt}
    before = dict(given)
    found = [each async for each in engine.generate(given, "params", "one", priority=3)]
    assert found == [("params", "one", 3)]
    assert given == before, "the caller's prompt stays as it is"
    assert stock.prompt["prompt_token_ids"] == [1, 2, 3]
    return stock.prompt.get("cache_salt")


async def test_nobodys_requests_keep_what_they_have() -> None:
    assert await salt(None) is None
    assert await salt(None, cache_salt="mine") == "mine"


async def test_a_tenant_shares_with_itself_only() -> None:
    salts = [
        await salt("alice"),
        await salt("bob"),
        await salt("alice", cache_salt="mine"),
        await salt("bob", cache_salt="mine"),
        await salt("alice", key=b"another engine's"),
    ]
    assert len({*salts, None, "mine"}) == 7
    assert await salt("alice") == salts[0]
    assert await salt("alice", cache_salt="mine") == salts[2]
    # Even who has seen a salt gets another one by sending it.
    assert await salt("bob", cache_salt=salts[0]) != salts[0]


async def test_what_has_no_tokens_yet_passes() -> None:
    stock = Stock()
    engine = SensefieldEngine(stock, [TenantSalt(lambda: "alice", b"key")])
    sound = object()
    _ = [each async for each in engine.generate(sound, None, "one", priority=0)]
    assert stock.prompt is sound
