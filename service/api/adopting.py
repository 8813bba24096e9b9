"""Serving objects made out of those that vLLM has built."""

from __future__ import annotations

from copy import copy
from typing import Any, Self


class Adopting:
    """Mixin for a subclass of a vLLM class; its objects share the state of a stock object."""

    engine_client: Any

    @classmethod
    def adopt(cls, stock: object) -> Self:
        """Return an object with the settings of a stock object."""
        serving = cls.__new__(cls)
        serving.__dict__.update(stock.__dict__)
        return serving

    def through(self, engine: Any) -> Self:
        """Return a copy that uses another engine client."""
        serving = copy(self)
        serving.engine_client = engine
        return serving
