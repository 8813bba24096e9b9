"""What tests of pages share: a machine, and a table's cells."""

from __future__ import annotations

from typing import Any

MACHINE: dict[str, Any] = {
    "cpu": "Some CPU",
    "cores": 2,
    "memory_gib": 23.5,
    "accelerators": [],
    "python": "3.12.1",
    "vllm": "0.32.0",
    "torch": "2.13.0",
    "date": "2026-01-02T03:04:05+00:00",
}


def cells(line: str) -> list[str]:
    """Return the cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]
