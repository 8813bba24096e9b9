"""The command line: which flags are ours, which vLLM's, and how a refusal leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from service import __version__, cli, launch
from service.errors import StartupError
from service.settings import PREFIX, Settings


class Launched(list[list[str]]):
    """The flags of every launch, which goes no further."""

    refuse_with: Exception | None = None

    def __call__(self, flags: Sequence[str]) -> None:
        self.append(list(flags))
        if self.refuse_with is not None:
            raise self.refuse_with


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Give the environment back as it was: the command line writes into it."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(PREFIX):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    launches = Launched()
    monkeypatch.setattr(launch, "launch", launches)
    return launches


@pytest.mark.parametrize(
    ("arguments", "engine_flags"),
    [
        (["serve"], []),
        (["serve", "model"], ["model"]),
        (["serve", "model", "--port", "8001"], ["model", "--port", "8001"]),
        (["serve", "model", "--max-vectors", "3", "--port=8001"], ["model", "--port=8001"]),
        (["serve", "--max-vectors=3", "model", "-tp", "2"], ["model", "-tp", "2"]),
        (["serve", "--host", "::", "--headless"], ["--host", "::", "--headless"]),
        # An abbreviation of ours may be a flag of vLLM's.
        (["serve", "--max", "3"], ["--max", "3"]),
        (
            ["serve", "m", "--override-generation-config", '{"a": -1}'],
            ["m", "--override-generation-config", '{"a": -1}'],
        ),
    ],
)
def test_what_is_not_ours_goes_to_the_engine(
    arguments: list[str], engine_flags: list[str], launched: Launched
) -> None:
    assert cli.main(arguments) == 0
    assert launched == [engine_flags]


def test_our_flags_reach_every_process_through_the_environment(launched: Launched) -> None:
    os.environ["SENSEFIELD_MAX_VECTORS"] = "1"
    arguments = ["serve", "m", "--max-vectors", "7", "--vectors-dir", "here"]
    assert cli.main(arguments) == 0
    assert os.environ["SENSEFIELD_MAX_VECTORS"] == "7"
    assert os.environ["SENSEFIELD_VECTORS_DIR"] == "here"
    assert "SENSEFIELD_MAX_TOP_LOGPROBS" not in os.environ
    assert Settings().max_vectors == 7


@pytest.mark.usefixtures("launched")
def test_the_file_is_named_by_a_flag() -> None:
    assert cli.main(["serve", "--sensefield-config", os.devnull]) == 0
    assert os.environ["SENSEFIELD_CONFIG"] == os.devnull


def test_a_bad_setting_ends_it_before_the_engine(
    launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--max-vectors", "none"]) == 1
    assert launched == []
    said = capsys.readouterr().err
    assert "max_vectors" in said
    assert "none" in said


@pytest.mark.parametrize("error", [StartupError("vectors_dir cannot be"), ValueError("a flag")])
def test_a_server_that_will_not_start_says_why(
    error: Exception, launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    launched.refuse_with = error
    assert cli.main(["serve"]) == 1
    assert capsys.readouterr().err == f"sensefield: {error}\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sensefield {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [([], 0), (["-h"], 0), (["--help"], 0), (["serve", "--help"], 0), (["serv"], 2)],
)
def test_help_lists_our_flags(
    arguments: list[str], status: int, launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == status
    assert launched == []
    said = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in said


def test_the_help_that_our_help_names_is_vllms(launched: Launched) -> None:
    assert cli.main(["serve", "--help=all"]) == 0
    assert launched == [["--help=all"]]
