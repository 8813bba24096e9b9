"""A table: what was done, what was expected, what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.measure.machine import describe_machine
from loadtests.report.pages import machine_line
from tests.integration.servers import MODEL


@dataclass
class Row:
    """One thing done."""

    done: str
    expected: str
    observed: str = ""


class Report:
    """The rows in the order in which they were seen."""

    def __init__(self, title: str, told: str, kind: str) -> None:
        self._head = (f"# {title}", "", told)
        self._kind = kind
        self._rows: list[Row] = []

    @contextmanager
    def row(self, done: str, expected: str) -> Iterator[Row]:
        """Add a row; what fails or is skipped says so in it."""
        row = Row(done, expected)
        self._rows.append(row)
        try:
            yield row
        except pytest.skip.Exception as skipped:
            row.observed = f"not tried: {skipped.msg}"
            raise
        except BaseException as failure:
            row.observed = f"**failed**: {type(failure).__name__}"
            raise

    def write(self, path: Path) -> None:
        """Write the table as Markdown."""
        lines = [f"| {row.done} | {row.expected} | {row.observed} |" for row in self._rows]
        head = [
            *self._head,
            f"{machine_line(describe_machine(), MODEL)}.",
            "",
            f"| {self._kind} | expected | observed |",
            "|---|---|---|",
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*head, *lines]) + "\n")
