"""The files of an archive, whose content is what the index says."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from loadtests.conformance.archive import ArchiveError, unpack_tests

FILES = {"p-1/tests/test_a.py": b"a", "p-1/tests/sub/test_b.py": b"b", "p-1/setup.py": b"no"}


@pytest.fixture
def sdist(tmp_path: Path) -> dict[str, Any]:
    """A lock file that names an archive of three files."""
    file = tmp_path / "p-1.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {
        "url": file.as_uri(),
        "hashes": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    }


def test_only_the_tests_are_unpacked(sdist: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    unpack_tests(sdist, "tests/", folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"tests/test_a.py", "tests/sub/test_b.py"}


def test_another_content_is_refused(sdist: dict[str, Any], tmp_path: Path) -> None:
    sdist["hashes"]["sha256"] = "0" * 64
    with pytest.raises(ArchiveError, match="SHA-256"):
        unpack_tests(sdist, "tests/", tmp_path / "out")
    assert not (tmp_path / "out").exists()
