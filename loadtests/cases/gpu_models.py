"""The models that a GPU is measured with: real weights where there are some, else made-up ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from service.embedded_model import embedded_model_dir

_SHAPES = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B")
"""Measured without their weights: of these the hub is asked for configuration and tokenizer."""


@dataclass(frozen=True)
class Model:
    """A model, with the arguments of ``vllm serve`` for it."""

    name: str
    path: str
    dummy: bool
    """True if its weights are random numbers: the speed is the same, the text is meaningless."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags beside the path."""
        return ("--load-format", "dummy") if self.dummy else ()

    @property
    def title(self) -> str:
        """The name in a table."""
        return f"{self.name}, dummy weights" if self.dummy else self.name


def models_in(folder: Path) -> list[Model]:
    """Return the models whose folders lie in ``folder``, the smallest first.

    Raises:
        ValueError: there is none.

    """
    found = [config.parent for config in folder.glob("*/config.json")]
    if not found:
        raise ValueError(f"--models {folder}: no folder in it holds a config.json")
    return [
        Model(path.name, str(path), dummy=not any(path.glob("*.safetensors")))
        for path in sorted(found, key=_size)
    ]


def default_models() -> list[Model]:
    """Return the embedded model and the shapes of two others, the smallest first."""
    embedded = embedded_model_dir()
    shapes = [Model(name.rpartition("/")[2], name, dummy=True) for name in _SHAPES]
    return [Model(embedded.name, str(embedded), dummy=False), *shapes]


def _size(path: Path) -> int:
    """Return about a twelfth of the parameters in the layers of a decoder."""
    config = json.loads((path / "config.json").read_text())
    return int(config["num_hidden_layers"] * config["hidden_size"] ** 2)
