"""API keys: lines that are read and written, secrets that are found, files that are refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keys import Key, KeyRing, new_secret
from service.access.roles import ROLES
from service.cli import main
from service.errors import StartupError

SECRET = "sf-secret"
HEX = hashlib.sha256(SECRET.encode()).hexdigest()
LINE = f"alice inference,vectors sha256:{HEX}"
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,31}", fullmatch=True)


@given(NAMES, st.sets(st.sampled_from(ROLES), min_size=1), st.text())
def test_a_key_is_what_its_line_says(name: str, roles: set[str], secret: str) -> None:
    key = Key.of(name, roles, secret)
    assert Key.parse(key.to_line()) == key
    assert (key.name, set(key.roles)) == (name, roles)
    assert KeyRing([key]).find(secret) == key
    assert KeyRing([key]).find(secret + "x") is None


def test_a_line_holds_the_hash_and_not_the_secret() -> None:
    assert Key.of("alice", ["vectors", "inference"], SECRET).to_line() == LINE


def test_secrets_are_long_and_never_the_same() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch(r"sf-[\w-]{43}", secret) for secret in secrets)


@pytest.mark.parametrize(
    ("roles", "tenant"), [(["inference"], "alice"), (["admin"], None), (["admin", "vectors"], None)]
)
def test_an_administrator_works_on_what_all_share(roles: list[str], tenant: str | None) -> None:
    assert Key.of("alice", roles, SECRET).tenant == tenant


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("alice inference", "NAME ROLE"),
        (f"Alice inference sha256:{HEX}", "'Alice'"),
        (f"{'a' * 33} inference sha256:{HEX}", "1 to 32"),
        (f"a~b inference sha256:{HEX}", "'a~b'"),
        (f"alice chef sha256:{HEX}", "'chef'"),
        (f"alice inference, sha256:{HEX}", "''"),
        ("alice inference sha256:12", "64 hexadecimal"),
        (f"alice inference {HEX}", "64 hexadecimal"),
    ],
)
def test_a_line_that_is_no_key_is_refused_with_its_number(
    line: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n\n{line}\n")
    with pytest.raises(StartupError, match=r"line 3") as caught:
        KeyRing.read("", str(file))
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "# none\n"])
def test_a_file_without_a_key_does_not_open_the_server(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(StartupError, match="holds no key"):
        KeyRing.read("", str(file))
    with pytest.raises(StartupError, match="cannot be read"):
        KeyRing.read("", str(tmp_path / "absent"))


def test_keys_come_from_file_and_environment_together(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{LINE}\n")
    others = [Key.of("bob", ["metrics"], "b"), Key.of("carol", ["admin"], "c")]
    ring = KeyRing.read(";".join(key.to_line() for key in others), str(file))
    assert ring
    assert [ring.find(secret) for secret in (SECRET, "b", "c")] == [Key.parse(LINE), *others]
    assert not KeyRing.read("", None)


def test_the_command_prints_a_key_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--role", "vectors", "--role", "inference", "--name", "eve"]) == 0
    _, secret, _, _, line = capsys.readouterr().out.splitlines()
    assert Key.parse(line) == Key.of("eve", ["inference", "vectors"], secret)


@pytest.mark.parametrize(
    "arguments", [["--name", "a"], ["--role", "vectors"], ["--name", "A", "--role", "vectors"]]
)
def test_the_command_says_what_is_missing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", *arguments])
    assert ended.value.code == 2
    assert "sensefield keys new: error" in capsys.readouterr().err
