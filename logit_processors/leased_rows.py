"""Reference-counted rows of a table of vectors."""

from __future__ import annotations

from logit_processors.holders import Holders


class LeasedRows:
    """Rows of a table on the device, by the content hash of the vector in each.

    A vector stays until every API process that put it has dropped it. Requests hold rows
    (:meth:`acquire`, :meth:`release`): a row is free again when its vector is dropped and the
    last request has released it.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._rows: dict[str, int] = {}
        self._users: dict[int, int] = {}
        self._dropped: set[int] = set()
        self._free = list(range(capacity - 1, -1, -1))
        self._holders = Holders()

    def __contains__(self, content: str) -> bool:
        return content in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def _place(self, content: str, holder: str) -> int:
        """Assign a free row to a vector and return it; IndexError if there is none."""
        row = self._rows[content] = self._free.pop()
        self._holders.add(content, holder)
        return row

    def drop(self, content: str, holder: str = "") -> None:
        """Drop a vector; its row is reused when no running request holds it."""
        if not self._holders.remove(content, holder):
            return
        row = self._rows.pop(content, None)
        if row is None:
            return
        if self._users.get(row):
            self._dropped.add(row)
        else:
            self._free.append(row)

    def acquire(self, content: str) -> int | None:
        """Hold the row of a vector and return it; None if the vector is not present."""
        row = self._rows.get(content)
        if row is not None:
            self._users[row] = self._users.get(row, 0) + 1
        return row

    def release(self, row: int) -> None:
        """Release a row from :meth:`acquire`."""
        self._users[row] -= 1
        if not self._users[row]:
            del self._users[row]
            if row in self._dropped:
                self._dropped.remove(row)
                self._free.append(row)
