"""The README's Python examples run as they are pasted, one after another, on the default server."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.integration.servers import REPOSITORY, OwnServer

pytestmark = pytest.mark.xdist_group("embedded")

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (REPOSITORY / "README.md").read_text()


def test_the_examples_run(embedded: OwnServer, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = _BLOCK.findall(README)
    assert len(blocks) >= 8
    names: dict[str, object] = {"__name__": "readme"}
    printed = []
    for at, block in enumerate(blocks):
        source = block.replace("http://localhost:8000", embedded.url)
        exec(compile(source, f"README block {at}", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert all(printed), "every example shows something"
    plain, biased, suppressed, forced, steered, residual, *others = printed
    vectors, late, distribution, streamed, notebook, arrow, polars, duckdb, *others = others
    score, lens, table, metrics = others
    assert plain.startswith("The sea")
    assert "ocean" in biased[:12]
    assert "the" not in suppressed.lower()
    assert forced.startswith("Nobody has")
    assert "' ocean'" in steered
    off, cheerful, gloomy = residual.splitlines()
    assert len({off[1:], cheerful[1:], gloomy[2:]}) == 3
    assert "the same vector again: True" in vectors
    assert late[:10] == plain[:10]
    assert late != plain
    assert ", 1000)" in distribution
    assert streamed.count("entropy") == 8
    assert "controlled_rank: int32" in notebook
    assert arrow.count("nats") == 8
    assert "completion_tokens" in arrow
    assert "shape: (3, 3)" in polars
    assert len(duckdb.splitlines()) == 3
    assert score.count("loss") == 4
    assert len(lens.splitlines()) == 5
    assert "layer" in table
    assert f"```text\n{metrics}```" in README
    client = names["client"]
    assert hasattr(client, "close")
    client.close()


def test_the_greeting_can_be_pasted(embedded: OwnServer) -> None:
    greeting = embedded.log.read_text()
    found = re.search(r"curl (\S+/v1/chat/completions) .* -d '(.*)'", greeting)
    assert found is not None
    answer = httpx.post(
        found[1], content=found[2], headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.is_success, answer.text
    assert "V1 runner" in greeting
