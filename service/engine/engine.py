"""vLLM's engine client, wrapped in steps that each request passes before the engine.

All routes, including vLLM's own, generate through it: it replaces the client before vLLM builds
its application.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

from vllm.engine.protocol import EngineClient

Outputs = AsyncGenerator[Any, None]
Generate = Callable[..., Outputs]
"""``generate(prompt, sampling_params, request_id, ...)``, as vLLM's client has it."""
Step = Callable[..., Outputs]
"""``step(generate, prompt, sampling_params, request_id, ...)``: it calls ``generate`` in turn."""


class _Delegated:
    """An attribute that is read from the wrapped client."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, engine: Any, kind: type) -> Any:
        return self if engine is None else getattr(engine.stock, self._name)


# Delegated by name: a non-abstract method of the interface would otherwise hide the client's.
_INTERFACE: Any = type(
    "_Interface",
    (EngineClient,),
    {name: _Delegated(name) for name in dir(EngineClient) if not name.startswith("_")},
)


class SensefieldEngine(_INTERFACE):
    """An engine client whose requests pass steps; everything else is delegated to vLLM's client.

    Args:
        stock: vLLM's client.
        steps: the steps, in order. They may be replaced after the engine has answered the
            questions of the start.

    """

    def __init__(self, stock: Any, steps: Sequence[Step] = ()) -> None:
        self.stock = stock
        self.steps = tuple(steps)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the client that the interface does not declare."""
        return getattr(self.stock, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Return the client's class: vLLM's development routes check it."""
        return type(self.stock)

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate with vLLM's client, after the steps."""
        generate: Generate = self.stock.generate
        for step in reversed(self.steps):
            generate = partial(step, generate)
        return generate(prompt, sampling_params, request_id, *args, **kwargs)

    def behind(self, step: Step) -> SensefieldEngine:
        """Return the same engine with one more step, before all others."""
        return SensefieldEngine(self.stock, (step, *self.steps))

    def without(self, kind: type) -> SensefieldEngine:
        """Return the same engine without the steps of a kind."""
        return SensefieldEngine(
            self.stock, [step for step in self.steps if not isinstance(step, kind)]
        )


def served_through(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return vLLM's ``build_and_serve``, whose application has a :class:`SensefieldEngine`."""

    async def build_and_serve(engine_client: Any, *args: Any, **kwargs: Any) -> Any:
        return await stock(SensefieldEngine(engine_client), *args, **kwargs)

    return build_and_serve
