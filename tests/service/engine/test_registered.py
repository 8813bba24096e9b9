"""Workers must know the same controls as the API process."""

from __future__ import annotations

from typing import Any

import pytest

from logit_processors.registry import fingerprints
from service.engine.registered import assert_same_controls
from service.errors import StartupError


class Engine:
    """Answers with what its workers know."""

    def __init__(self, *workers: dict[str, str]) -> None:
        self.workers = workers

    async def collective_rpc(self, method: str, _timeout: None, _args: Any) -> list[dict[str, str]]:
        assert method == "sensefield_controls"
        return [*self.workers]


async def test_the_same_controls_are_served() -> None:
    await assert_same_controls(Engine(fingerprints(), fingerprints()))


@pytest.mark.parametrize("change", [{"token_bias": "another"}, {"mirostat": "only there"}])
async def test_a_worker_with_others_is_named(change: dict[str, str]) -> None:
    with pytest.raises(StartupError, match=f"worker 1 .* {next(iter(change))};"):
        await assert_same_controls(Engine(fingerprints(), {**fingerprints(), **change}))


async def test_a_worker_that_lacks_one_is_named() -> None:
    theirs = fingerprints()
    del theirs["force"]
    with pytest.raises(StartupError, match=r"worker 0 .* force;"):
        await assert_same_controls(Engine(theirs))
