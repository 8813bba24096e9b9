"""vLLM's engine client, with the steps that each request takes on its way to the engine.

All routes, vLLM's own too, generate through it: it takes the client's place before vLLM builds
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
"""``step(generate, prompt, sampling_params, request_id, ...)``: it does its part and goes on."""


class _Delegated:
    """An attribute that is the client's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, engine: Any, kind: type) -> Any:
        return self if engine is None else getattr(engine.stock, self._name)


# What the interface declares is delegated by name: a default of the interface's, which is not
# abstract, would otherwise stand before the client's own.
_INTERFACE: Any = type(
    "_Interface",
    (EngineClient,),
    {name: _Delegated(name) for name in dir(EngineClient) if not name.startswith("_")},
)


class SensefieldEngine(_INTERFACE):
    """An engine client whose requests take steps; all else is done by vLLM's.

    Args:
        stock: vLLM's client.
        steps: what each request passes, the first one first. They may be replaced once the
            engine has answered what they need to know.

    """

    def __init__(self, stock: Any, steps: Sequence[Step] = ()) -> None:
        self.stock = stock
        self.steps = tuple(steps)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the client's that its interface does not declare."""
        return getattr(self.stock, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Return the client's class, which vLLM's development routes ask for."""
        return type(self.stock)

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate as vLLM does, behind the steps."""
        generate: Generate = self.stock.generate
        for step in reversed(self.steps):
            generate = partial(step, generate)
        return generate(prompt, sampling_params, request_id, *args, **kwargs)

    def behind(self, step: Step) -> SensefieldEngine:
        """Return the same engine for a request that takes one more step, before all others."""
        return SensefieldEngine(self.stock, (step, *self.steps))

    def without(self, kind: type) -> SensefieldEngine:
        """Return the same engine for requests that do not take steps of a kind."""
        return SensefieldEngine(
            self.stock, [step for step in self.steps if not isinstance(step, kind)]
        )


def served_through(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return vLLM's ``build_and_serve``, whose application has a :class:`SensefieldEngine`."""

    async def build_and_serve(engine_client: Any, *args: Any, **kwargs: Any) -> Any:
        return await stock(SensefieldEngine(engine_client), *args, **kwargs)

    return build_and_serve
