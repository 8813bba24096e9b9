"""Entries of control as tests write them: by position, with what they leave out as requests do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logit_processors.control import When, between
from logit_processors.controls.bias import BiasEntry
from logit_processors.controls.force import Force
from logit_processors.controls.steer import SteerEntry
from logit_processors.controls.suppress import SuppressEntry
from logit_processors.program import Program
from logit_processors.residual import Capture
from logit_processors.row_spec import RowSpec


def bias_token(token_id: int, add: float, when: When | None = None) -> BiasEntry:
    return BiasEntry(token_id=token_id, add=add, when=when)


def bias_text(
    text: str, add: float, ignore_case: bool = False, when: When | None = None
) -> BiasEntry:
    return BiasEntry(text=text, add=add, ignore_case=ignore_case, when=when)


def suppress_token(token_id: int, when: When | None = None) -> SuppressEntry:
    return SuppressEntry(token_id=token_id, when=when)


def suppress_text(text: str, ignore_case: bool = False, when: When | None = None) -> SuppressEntry:
    return SuppressEntry(text=text, ignore_case=ignore_case, when=when)


def steer_logits(vector: str, strength: float, when: When | None = None) -> SteerEntry:
    return SteerEntry(vector=vector, strength=strength, when=when)


def steer_residual(
    vector: str,
    strength: float,
    layers: Sequence[int] | None = None,
    when: When | None = None,
) -> SteerEntry:
    listed = None if layers is None else list(layers)
    return SteerEntry(vector=vector, strength=strength, at="residual", layers=listed, when=when)


def span(start: int | None = None, stop: int | None = None) -> When:
    """Return a window that may begin in the prompt."""
    return between(start, stop)


def program_of(
    token_bias: Sequence[BiasEntry] = (),
    text_bias: Sequence[BiasEntry] = (),
    steer: Sequence[SteerEntry] = (),
    token_suppress: Sequence[SuppressEntry] = (),
    text_suppress: Sequence[SuppressEntry] = (),
    force: Sequence[int] = (),
) -> Program:
    """Return the program of some entries at the logits."""
    return Program.of(
        {
            "token_bias": token_bias,
            "text_bias": text_bias,
            "steer_logits": steer,
            "token_suppress": token_suppress,
            "text_suppress": text_suppress,
            "force": [Force(token_ids=list(force))] if force else [],
        }
    )


def spec_of(
    top_k: int = 0, base: bool = False, controlled: bool = False, half: bool = False
) -> RowSpec:
    return RowSpec(top_k=top_k, base=base, controlled=controlled, half=half)


def capture_of(
    tag: str, last: int = 1, layers: Sequence[int] | None = None, each: bool = False
) -> Capture:
    listed = None if layers is None else list(layers)
    return Capture(tag=tag, last=last, layers=listed, each=each)


def entries_of(program: Program, kind: str) -> list[Any]:
    """Return the entries of one kind."""
    return list(program.entries.get(kind, ()))
