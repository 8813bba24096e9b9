"""Seeded random number generators on a CPU that can be rewound after a part of a prompt.

vLLM's V1 runner samples every row of a step and discards the tokens of incomplete prompts. It
then moves the generators of these requests back by one step's offset. A CPU generator of torch
has no offset: the engine would end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch

STEP = 4
"""Offset by which vLLM moves a generator back for one step."""


class RewindableGenerator(torch.Generator):
    """A CPU generator whose last step can be rewound.

    It is part of vLLM's state of its request, which outlives preemption.
    """

    _before: torch.Tensor | None = None
    """State before the last step, ``[bytes]`` uint8; None if there is no step to rewind."""
    _offset: int = 0

    @classmethod
    def like(cls, generator: torch.Generator) -> Self:
        """Return a generator that continues a CPU generator's sequence."""
        made = cls("cpu")
        made.set_state(generator.get_state())
        return made

    def begin_step(self) -> None:
        """Save the state that :meth:`set_offset` restores."""
        self._before = self.get_state()
        self._offset += STEP

    def get_offset(self) -> int:
        """Return the offset, :data:`STEP` for each step that was not rewound."""
        return self._offset

    def set_offset(self, offset: int) -> Self:
        """Rewind the last step.

        Args:
            offset: the offset before that step.

        Raises:
            ValueError: another offset, or a second step: their states are not saved.

        """
        if self._before is None or offset != self._offset - STEP:
            raise ValueError(f"the state at offset {offset} is not kept")
        self.set_state(self._before)
        self._before = None
        self._offset = offset
        return self


def begin_step(generators: Iterable[torch.Generator]) -> None:
    """Save the generators' states before a step is sampled."""
    for generator in generators:
        if isinstance(generator, RewindableGenerator):
            generator.begin_step()


def rewindable(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V1's ``CachedRequestState.__post_init__``, with rewindable generators.

    Only seeded requests on a CPU get one.
    """

    def post_init(self: Any) -> None:
        stock(self)
        if self.generator is not None and self.generator.device.type == "cpu":
            self.generator = RewindableGenerator.like(self.generator)

    return post_init
