"""What the parts of the benchmark find out, and how it is printed: less is better in every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixer.table import table
from tests.bench.measure import Usage

MB = 1e6


@dataclass(frozen=True)
class Row:
    """One number, beside a goal or what something else needs for the same."""

    what: str
    ours: float
    unit: str
    reference: float | None = None
    source: str = ""
    """Whose number the reference is."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.reference if self.reference else None

    @property
    def is_reached(self) -> bool | None:
        return None if self.reference is None else self.ours <= self.reference

    def cells(self) -> tuple[str, ...]:
        ours = f"{_number(self.ours):>8} {self.unit}"
        if self.reference is None or self.ratio is None:
            return self.what, ours, "", "", "", self.note
        against = f"{_number(self.reference):>7}  {self.source}"
        return self.what, ours, against, f"{self.ratio:.2f}", "✓" if self.is_reached else "✗", self.note


def usage_rows(what: str, usage: Usage, note: str = "") -> list[Row]:
    """What a command cost, without anything to compare it with."""
    return [
        Row(f"{what}: wall time", usage.wall, "s", note=note),
        Row(f"{what}: CPU", usage.cpu, "CPU s"),
        Row(f"{what}: memory", usage.memory / MB, "MB"),
    ]


def printed(title: str, rows: Sequence[Row]) -> str:
    """The table of a part."""
    heading = (title, "    ours", "goal or baseline", "ratio", "", "")
    return table([heading, *(row.cells() for row in rows)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
