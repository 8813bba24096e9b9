"""Compares the registered controls of the workers with those of this process."""

from __future__ import annotations

from typing import Any

from logit_processors.registry import fingerprints
from service.errors import StartupError


async def assert_same_controls(engine: Any) -> None:
    """Compare the kinds of control of each worker with those of this process.

    A worker on another machine may have another version of a plugin, or none.

    Raises:
        StartupError: a worker would not understand this process's programs.

    """
    own = fingerprints()
    for number, theirs in enumerate(await engine.collective_rpc("sensefield_controls", None, ())):
        different = sorted(name for name in {*own, *theirs} if own.get(name) != theirs.get(name))
        if different:
            raise StartupError(
                f"worker {number} has another version of these controls than the API process, or "
                f"none: {', '.join(different)}; install the same plugins on each machine"
            )
