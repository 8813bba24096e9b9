"""Settings: where each comes from, which wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import StartupError
from service.settings import CONFIG_VARIABLE, PREFIX, Settings, data_dir, settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Settings.model_fields, "config"]:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    made = Settings()
    assert made.vectors_dir == str(tmp_path / "sensefield" / "vectors")
    assert made.max_top_logprobs == 1000
    assert 0 < made.distribution_request_bytes <= made.distribution_total_bytes


def test_data_belongs_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert data_dir() == Path.home() / ".local" / "share" / "sensefield"


def test_flags_win_over_environment_and_environment_over_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "sensefield.toml"
    file.write_text("max_vectors = 1\nmax_top_logprobs = 1\ndistribution_request_bytes = 1\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("SENSEFIELD_MAX_VECTORS", "2")
    monkeypatch.setenv("SENSEFIELD_MAX_TOP_LOGPROBS", "2")
    made = Settings(max_vectors=3)
    assert made.max_vectors == 3
    assert made.max_top_logprobs == 2
    assert made.distribution_request_bytes == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_vectors", "0"),
        ("max_vectors", "many"),
        ("max_vectors", ""),
        ("max_top_logprobs", "-1"),
        ("distribution_request_bytes", "0"),
        ("distribution_total_bytes", "1.5"),
    ],
)
def test_a_bad_value_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    assert error["loc"] == (name,)
    assert error["input"] == value


@pytest.mark.parametrize("text", ["max_vektors = 3", "max_vectors = 'many'", "max_vectors ="])
def test_a_bad_file_is_refused(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "sensefield.toml"
    file.write_text(text)
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(ValueError, match=r"max_ve|Invalid value"):
        Settings()


def test_a_file_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A server that quietly runs with defaults in the place of its file is worse than none.
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "absent.toml"))
    with pytest.raises(StartupError, match=r"absent\.toml"):
        Settings()


def test_settings_cannot_be_changed_and_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    try:
        monkeypatch.setenv("SENSEFIELD_MAX_VECTORS", "5")
        first = settings()
        monkeypatch.setenv("SENSEFIELD_MAX_VECTORS", "6")
        assert settings() is first
        assert first.max_vectors == 5
        with pytest.raises(ValidationError):
            first.max_vectors = 7  # type: ignore[misc]
    finally:
        settings.cache_clear()
