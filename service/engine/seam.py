"""One place where Sensefield meets vLLM's code: its owner, its parameters, its replacement."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pkgutil import resolve_name
from typing import Any

from vllm.triton_utils import HAS_TRITON


class Where(Enum):
    """The processes that a seam is installed in."""

    LAUNCHER = "the process that starts the server"
    EVERY = "each process of the engine and of the API"


class State(Enum):
    """The state of a place in the installed vLLM."""

    OK = "ok"
    MISSING = "missing"
    DIFFERS = "signature differs"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A function or class of vLLM that Sensefield relies on.

    Args:
        owner: import path, ``package.module`` or ``package.module:Class``.
        attribute: name of the function or class in its owner.
        parameters: expected names, in their order.
        why: the reason to rely on it.
        needs_triton: whether vLLM runs it only beside Triton.

    """

    owner: str
    attribute: str
    parameters: tuple[str, ...]
    why: str
    needs_triton: bool = False

    @property
    def name(self) -> str:
        """Return the owner and the attribute, as code would name them."""
        return f"{self.owner.replace(':', '.')}.{self.attribute}"

    @property
    def is_here(self) -> bool:
        """Say whether vLLM runs it on this machine."""
        return HAS_TRITON or not self.needs_triton

    def found(self) -> Any:
        """Return what vLLM has there.

        Raises:
            AttributeError: it has nothing.
            ImportError: it has no such module.

        """
        return getattr(resolve_name(self.owner), self.attribute)

    def found_parameters(self) -> tuple[str, ...]:
        """Return the names of the parameters that vLLM's takes."""
        return tuple(inspect.signature(self.found()).parameters)

    def state(self) -> State:
        """Compare with the installed vLLM."""
        try:
            found = self.found_parameters()
        except (AttributeError, ImportError):
            return State.MISSING
        return State.OK if found == self.parameters else State.DIFFERS


@dataclass(frozen=True, kw_only=True)
class Seam(Place):
    """A function or class of vLLM that Sensefield replaces.

    Args:
        wrap: makes the replacement out of vLLM's own. A seam has this or an installer.
        installer: replaces vLLM's own, with all else that its module replaces.
        where: the processes that need it.
        since: minor version of vLLM from which on it has this form.
        until: minor version of vLLM whose own hook takes its place; empty while there is none.

    """

    wrap: Callable[[Any], Any] | None = None
    installer: Callable[[], None] | None = None
    where: Where = Where.EVERY
    since: str = "0.32"
    until: str = ""
