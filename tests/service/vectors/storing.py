"""Names, contents and a store's view of them, for the tests of the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.vectors.content import VectorContent
from service.vectors.store import Entry, StoredName, VectorStore

ONE, TWO = "1" * 64, "2" * 64
SUMMARY = VectorContent({"layer.3": np.array([3, 4], np.float32)}).summary


def files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {".lock"}


def name(called: str, sha256: str = ONE, created: int = 7) -> StoredName:
    made_from = {"text": " ocean", "token_ids": [3, 4]}
    return StoredName(called, sha256, created, made_from, "tiny", 3, SUMMARY)


def any_entry(_: Entry | None) -> None:
    """Guard nothing."""


def put(store: VectorStore, stored: StoredName, data: bytes) -> bool:
    return store.write(stored, data, any_entry)


def all_names(store: VectorStore) -> list[Entry]:
    return list(dict(sorted(store.find(store.list_names()).items())).values())
