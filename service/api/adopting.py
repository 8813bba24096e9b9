"""Serving objects made out of those that vLLM has built."""

from __future__ import annotations

from copy import copy
from typing import Any, Self


class Adopting:
    """Base beside a class of vLLM's, whose objects share the state of a stock one."""

    engine_client: Any

    @classmethod
    def adopt(cls, stock: object) -> Self:
        """Return one that serves with the settings of a stock object."""
        serving = cls.__new__(cls)
        serving.__dict__.update(stock.__dict__)
        return serving

    def through(self, engine: Any) -> Self:
        """Return one that serves the same through another engine client."""
        serving = copy(self)
        serving.engine_client = engine
        return serving
