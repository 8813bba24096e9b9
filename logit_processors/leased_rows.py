"""Which row of a table holds which vector, and for how long."""

from __future__ import annotations

from logit_processors.holders import Holders


class LeasedRows:
    """Rows of a table on the device, by the content hash of the vector in each.

    A vector is here until every API process that put it has dropped it. Requests hold rows
    (:meth:`acquire`, :meth:`release`): a row is free again when its vector is dropped and the
    last of them lets go.
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
        """Return a free row, from now on that of a vector; IndexError if there is none."""
        row = self._rows[content] = self._free.pop()
        self._holders.add(content, holder)
        return row

    def drop(self, content: str, holder: str = "") -> None:
        """Forget a vector; its row is reused when no running request holds it."""
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
        """Return the row of a vector and hold it, or None if it is not here."""
        row = self._rows.get(content)
        if row is not None:
            self._users[row] = self._users.get(row, 0) + 1
        return row

    def release(self, row: int) -> None:
        """Let go of a row that :meth:`acquire` gave."""
        self._users[row] -= 1
        if not self._users[row]:
            del self._users[row]
            if row in self._dropped:
                self._dropped.remove(row)
                self._free.append(row)
