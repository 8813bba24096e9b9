"""Answers in a notebook: every encoding, every measure, and no text that is taken for HTML."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.distributions.arrow import ArrowEncoder
from service.distributions.encode import DistributionEncoder
from service.distributions.token_texts import TokenTexts
from service.notebook import Trace
from service.schemas.distribution import DistributionRequest
from tests.service.distributions.test_encode import BOTH, SAMPLED, dense_rows
from tests.unit_support import FOUR

TEXTS = ["a", "b", "ab", " "]
BOTH_STAGES = {"stages": ["base", "controlled"]}


def trace_of(texts: list[str] = TEXTS, **fields: Any) -> Trace:
    request = DistributionRequest(**{"top_k": 3, **BOTH_STAGES, **fields})
    encoder = DistributionEncoder(request, BOTH, len(TEXTS))
    told = json.loads(encoder.encode(SAMPLED, dense_rows()))
    return Trace.of({"index": 0, "distribution": told}, texts)


@pytest.mark.parametrize("top", [{"top_k": 3}, {"top_k": "all"}, {"top_p": 0.7}])
@pytest.mark.parametrize("encoding", ["base64", "json"])
def test_a_table_is_that_of_an_arrow_stream(encoding: str, top: dict[str, Any]) -> None:
    table = trace_of(encoding=encoding, **top).to_arrow()
    request = DistributionRequest(**{"top_k": 3, **BOTH_STAGES, **top})
    encoder = ArrowEncoder(request, BOTH, len(TEXTS), TokenTexts(FOUR))
    batch = encoder.batch(0, 0, SAMPLED, dense_rows())
    expected = pa.Table.from_batches([batch]).drop_columns(["choice", "bytes"])
    assert set(table.column_names) == set(expected.column_names)
    for name in expected.column_names:
        assert table[name].to_pylist() == expected[name].to_pylist(), name


def test_a_data_frame_has_the_same_columns() -> None:
    frame = trace_of().to_pandas()
    assert frame["token"].tolist() == ["ab", "a"]
    assert frame["base_rank"].tolist() == [3, 70000]
    assert frame["kl"].tolist() == [0.75, 0.0]


def spans(html: str) -> list[tuple[str, str]]:
    """Return what hovering over each token tells, and its colour."""
    found = re.findall(r'<span title="([^"]*)" style="background:(#\w+);', html)
    return [(unescape(title), colour) for title, colour in found]


@pytest.mark.parametrize(
    ("measure", "values", "shares"),
    [
        ("probability", [np.exp(-2.5), np.exp(-1)], [np.exp(-2.5), np.exp(-1)]),
        ("surprisal", [2.5, 1.0], [2.5 / 6, 1 / 6]),
        ("entropy", [0.5, 0.25], [0.1, 0.05]),
        ("kl", [0.75, 0.0], [np.sqrt(0.75 / 4), 0.0]),
    ],
)
def test_colour_follows_the_measure(measure: Any, values: list[float], shares: list[float]) -> None:
    html = trace_of().coloured(measure)._repr_html_()
    found = spans(html)
    assert [title for title, _ in found] == [
        f"'{token}': {value:.3f}" for token, value in zip(["ab", "a"], values, strict=True)
    ]
    # From white down to 60 of blue.
    blues = [int(colour[5:], 16) for _, colour in found]
    assert blues == [round(255 - 195 * share) for share in shares]
    told = {"kl": "kl of logit control 0"}.get(measure, f"{measure} 0")
    assert f">{told} <" in html


def test_one_stage_is_enough_but_for_kl() -> None:
    trace = trace_of(stages=["base"])
    assert spans(trace.coloured()._repr_html_())[0][0] == "'ab': 2.000"
    with pytest.raises(ValueError, match="stages"):
        trace.coloured("kl")
    with pytest.raises(ValueError, match="'mood'; allowed: probability, surprisal"):
        trace.coloured("mood")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ask for one"):
        Trace.of({"index": 0}, TEXTS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('<b onclick="x">&', "&lt;b·onclick=&quot;x&quot;&gt;&amp;"),
        ("'\"", "&#x27;&quot;"),
        (" a\t", "·a⇥"),
        ("a\n", "a↵"),
        (":\n  \n#", ":↵··↵#"),
        ("\ufffd", "◌"),
        ("", "∅"),
    ],
)
def test_text_is_escaped_and_white_space_is_seen(text: str, shown: str) -> None:
    html = trace_of(["x", "b", text, " "]).coloured()._repr_html_()
    token = html.split('padding:1px 0">')[1].split("<span title=")[0]
    assert re.sub(r"<[^>]*>", "", token) == shown
    assert spans(html)[0][0].startswith(repr(text))
    assert html.count("<br>") == text.count("\n")
