"""The notebook's example, run as its page says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.client import Client
from tests.integration.servers import REPOSITORY


def test_the_strip_is_drawn(v1: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(REPOSITORY / "docs/notebook/strip.py"))
    script["main"](["--url", v1.server.url, "--out", str(tmp_path)])
    assert "controlled_logprob" in capsys.readouterr().out
    html = (tmp_path / "strip.html").read_text()
    assert html.count("<hr>") == 3
    assert html.count('<span title="') >= 4 * 8
    assert "·ocean" in html.replace('<span style="opacity:.5">·</span>', "·")
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.width == 2 * 740
        colours = picture.convert("RGB").resize((64, 64)).getcolors(64 * 64)
        assert colours is not None
        assert len(colours) > 50
