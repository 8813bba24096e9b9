"""The table of seams: it fits the installed vLLM, and each row is installed as it says."""

from __future__ import annotations

import inspect
from dataclasses import replace as changed
from pkgutil import resolve_name
from typing import Any

import pytest

from service.engine import resting, seams
from service.engine.relied import CALLED
from service.engine.seam import Place, Seam, State, Where
from service.engine.seams import TABLE, install, is_installed
from service.errors import StartupError

PLACES = (*TABLE, *CALLED)
WRAPPED = [seam for seam in TABLE if seam.wrap is not None]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a seam, for one test."""
    monkeypatch.setattr(seams, "_installed", set())
    for seam in TABLE:
        owner = resolve_name(seam.owner)
        monkeypatch.setattr(owner, seam.attribute, getattr(owner, seam.attribute))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_the_installed_vllm_has_each_place(place: Place) -> None:
    assert place.state() == State.OK


def test_each_place_is_in_the_table_once() -> None:
    names = [place.name for place in PLACES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("seam", TABLE, ids=lambda seam: seam.name)
def test_a_row_says_what_replaces_it(seam: Seam) -> None:
    assert (seam.wrap is None) != (seam.installer is None)
    assert seam.why


@pytest.mark.parametrize("seam", WRAPPED, ids=lambda seam: seam.name)
def test_a_replacement_takes_what_vllm_gives(seam: Seam) -> None:
    """In their order: so vLLM's callers and the one that it replaces agree on it."""
    assert seam.wrap is not None
    stock = seam.found()
    given = inspect.signature(stock).parameters.values()
    by_place = [each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]
    by_name = {each.name: each.name for each in given if each.kind is each.KEYWORD_ONLY}
    inspect.signature(seam.wrap(stock)).bind(*by_place, **by_name)


@pytest.mark.parametrize("where", Where)
def test_a_process_installs_its_rows_and_no_other(
    where: Where, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One row leaves vLLM's own where a worker has its cores for itself.
    monkeypatch.setattr(resting, "shares_its_cores", lambda: True)
    before = {seam: seam.found() for seam in TABLE}
    assert not is_installed(where)
    install(where)
    assert is_installed(where)
    replaced = {seam for seam in TABLE if seam.found() is not before[seam]}
    assert replaced == {seam for seam in TABLE if seam.where is where and seam.is_here}
    assert [each for each in Where if is_installed(each)] == [where]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"parameters": ("self", "logits")},
            r"Sampler\.forward takes \(self, .*expected \(self, l",
        ),
        ({"attribute": "backward"}, r"it lacks .*\.Sampler\.backward$"),
        ({"owner": "vllm.v1.sample.gone:Sampler"}, r"it lacks vllm\.v1\.sample\.gone\.Sampler"),
    ],
)
def test_nothing_is_replaced_in_a_vllm_of_other_insides(
    change: dict[str, Any], told: str, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *others) = TABLE
    before = [seam.found() for seam in others]
    monkeypatch.setattr(seams, "TABLE", (*others, changed(first, **change)))
    with pytest.raises(StartupError, match=told):
        install(Where.EVERY)
    with pytest.raises(StartupError, match=told):
        seams.assert_supported()
    assert [seam.found() for seam in others] == before
    assert not is_installed(Where.EVERY)


def test_the_table_can_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seams.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"{seam.name}: ok" for seam in TABLE]
    assert all(seam.why in line for seam, line in zip(TABLE, lines[1::2], strict=True))
    gone = changed(TABLE[0], attribute="backward")
    other = changed(TABLE[0], parameters=())
    monkeypatch.setattr(seams, "TABLE", (gone, other))
    assert seams.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines[::2]] == ["missing", "signature differs"]
