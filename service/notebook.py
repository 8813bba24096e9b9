"""An answer's distributions in a notebook: as numpy, Arrow or pandas, and as coloured text.

from service.notebook import Trace

texts = httpx.get("http://localhost:8000/v1/tokens").json()["data"]
trace = Trace.of(answer["choices"][0], texts)
trace.coloured("kl")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pybase64 import b64decode

from service.distributions.tensors import NEVER

Measure = Literal["probability", "surprisal", "entropy", "kl"]

_SIGNS = {
    **{" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"},
    **{"\u00a0": "⍽", "\u3000": "□", "\u200b": "¦", "\ufffd": "◌"},
}
"""Visible forms of white space and of incomplete characters."""


def array(tensor: Mapping[str, Any] | Sequence[Any]) -> NDArray[Any]:
    """Return an array of an answer: base64 with its type and shape, or nested lists."""
    if isinstance(tensor, Mapping):
        data = np.frombuffer(b64decode(tensor["data"]), np.dtype(tensor["dtype"]).newbyteorder("<"))
        return data.reshape(tensor["shape"])
    values = np.array(tensor)
    if values.dtype.kind != "f":
        return values.astype(np.int32)
    return np.where(values == NEVER, -np.inf, values).astype(np.float32)


@dataclass(frozen=True)
class Trace:
    """The tokens of one choice, each with the statistics of its distributions."""

    tokens: list[str]
    columns: dict[str, NDArray[Any]]
    """``[tokens]`` each, named as in an Arrow stream: ``token_id``, ``base_logprob``, ``kl``, …"""
    rows: dict[str, list[NDArray[Any]]]
    """``base_logprobs`` and the like: an array ``[k]`` for each token."""

    @classmethod
    def of(cls, choice: Mapping[str, Any], texts: Sequence[str]) -> Trace:
        """Read a choice of a chat or completion whose request had a ``distribution``.

        Args:
            choice: one of ``choices``, as JSON.
            texts: the text of each token of the vocabulary, from ``GET /v1/tokens``.

        Raises:
            ValueError: the choice has no distribution.

        """
        found = choice.get("distribution")
        if found is None:
            raise ValueError("the choice has no distribution; ask for one")
        columns = {name: array(values) for name, values in found["sampled"].items()}
        rows = {}
        for stage in ("base", "controlled"):
            if stage not in found:
                continue
            arrays = {name: array(values) for name, values in found[stage].items()}
            columns[f"{stage}_entropy"] = arrays.pop("entropy")
            offsets = arrays.pop("offsets", None)
            for name, values in arrays.items():
                cut = values if offsets is None else np.split(values, offsets[1:-1])
                rows[f"{stage}_{name}"] = list(cut)
        if "kl" in found:
            columns["kl"] = array(found["kl"])
        return cls([texts[at] for at in columns["token_id"].tolist()], columns, rows)

    def to_arrow(self) -> Any:
        """Return a table with a row for each token, in the columns of an Arrow stream."""
        import pyarrow as pa

        lists = {name: pa.array(list(values)) for name, values in self.rows.items()}
        positions = pa.array(np.arange(len(self.tokens), dtype=np.int32))
        columns = {name: pa.array(values) for name, values in self.columns.items()}
        return pa.table({"position": positions, "token": self.tokens, **columns, **lists})

    def to_pandas(self) -> Any:
        """Return :meth:`to_arrow` as a data frame; pandas has to be installed."""
        return self.to_arrow().to_pandas()

    def coloured(self, by: Measure = "surprisal") -> Strip:
        """Return the text, each token coloured by a measure of its distribution.

        ``kl`` measures control of the logits only. Residual steering changes both distributions
        that it compares: a steered text without other control has no colour.

        Raises:
            ValueError: no such measure, or it takes two stages and the answer has one.

        """
        if by not in _MEASURES:
            raise ValueError(f"no measure {by!r}; allowed: {', '.join(_MEASURES)}")
        if by == "kl" and "kl" not in self.columns:
            raise ValueError('kl takes "stages": ["base", "controlled"] in the request')
        return Strip(self, by)

    def last(self, name: str) -> NDArray[Any]:
        """Return a column of the last stage, from which the tokens were drawn."""
        stage = "controlled" if f"controlled_{name}" in self.columns else "base"
        return self.columns[f"{stage}_{name}"]


@dataclass(frozen=True)
class _Scale:
    """A measure, and the range of its colours, as in the playground."""

    values: Callable[[Trace], NDArray[Any]]
    shares: Callable[[NDArray[Any]], NDArray[Any]]
    ends: tuple[str, str]
    label: str = ""
    """Its name in the legend, if that differs."""


_MEASURES: dict[str, _Scale] = {
    "probability": _Scale(lambda t: np.exp(t.last("logprob")), lambda v: v, ("0", "1")),
    "surprisal": _Scale(lambda t: -t.last("logprob"), lambda v: v / 6, ("0", "6 nats or more")),
    "entropy": _Scale(lambda t: t.last("entropy"), lambda v: v / 5, ("0", "5 nats or more")),
    # Its square root, so that small shifts are visible beside large ones.
    "kl": _Scale(
        lambda t: t.columns["kl"],
        lambda v: np.sqrt(v / 4),
        ("0", "4 nats or more"),
        "kl of logit control",
    ),
}


@dataclass(frozen=True)
class Strip:
    """Coloured text for a notebook."""

    trace: Trace
    by: Measure

    def _repr_html_(self) -> str:
        scale = _MEASURES[self.by]
        values = scale.values(self.trace).astype(np.float64)
        shares = np.clip(scale.shares(np.maximum(values, 0)), 0, 1)
        ramp = f"background:linear-gradient(90deg,{_colour(0)},{_colour(1)})"
        legend = (
            f'<div style="font:12px system-ui,sans-serif">{scale.label or self.by} {scale.ends[0]} '
            f'<span style="display:inline-block;width:8em;height:.8em;{ramp}"></span> '
            f"{scale.ends[1]}</div>"
        )
        tokens = map(_token, self.trace.tokens, values, shares)
        return (
            f'{legend}<div style="font:15px/1.9 ui-monospace,monospace;color:#1a1a1a">'
            f"{''.join(tokens)}</div>"
        )


def _token(text: str, value: float, share: float) -> str:
    shown = "".join(map(_shown, text))
    return (
        f'<span title="{escape(repr(text))}: {value:.3f}" '
        f'style="background:{_colour(share)};border-radius:3px;padding:1px 0">{shown or "∅"}'
        "</span><wbr>"
    )


def _shown(character: str) -> str:
    if character not in _SIGNS:
        return escape(character)
    sign = f'<span style="opacity:.5">{_SIGNS[character]}</span>'
    return f"{sign}<br>" if character == "\n" else sign


def _colour(share: float) -> str:
    """Return a colour from white to orange, on which dark text is readable."""
    return "#" + "".join(f"{round(255 + (end - 255) * share):02x}" for end in (244, 140, 60))
