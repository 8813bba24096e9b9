"""The keys of a running server, read again once their file has changed."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from pathlib import Path

from service.access.keys import KeyRing
from service.errors import StartupError

_log = logging.getLogger("vllm.sensefield")


class WatchedKeys:
    """The current keys of the settings ``api_keys`` and ``api_keys_file``.

    Raises:
        StartupError: as :meth:`KeyRing.read` does; a file that breaks later raises nothing.

    """

    def __init__(self, lines: str, file: str | None) -> None:
        self._lines = lines
        self._file = file
        self._mark = self._look()
        self._ring = KeyRing.read(lines, file)

    def __call__(self) -> KeyRing:
        """Return the keys: all of the file's new ones or, if it is broken, all of the old ones."""
        # stat comes before the read: the next call notices a change in between.
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            try:
                self._ring = KeyRing.read(self._lines, self._file)
            except StartupError as error:
                _log.error("the API keys stay as they were: %s", error)
            else:
                _log.warning("the API keys are read again: %d", len(self._ring))
        return self._ring

    def _look(self) -> Hashable:
        """Return inode, mtime and size of the file; None without a file."""
        if self._file is None:
            return None
        try:
            found = Path(self._file).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
