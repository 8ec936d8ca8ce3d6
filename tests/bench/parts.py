"""The parts of the benchmark by their names; each is imported only where it runs, to leave other processes small."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.bench.rows import Row

PARTS = ("builds", "client", "large", "synthetic", "micro")
WITH_PAIR = frozenset({"builds", "client"})
"""Those that need the data of tests.bench.pair."""


def rows_of(part: str, data: Path) -> list[Row]:
    """What a part finds out. Needs a process of its own (tests.bench.measure). Raises ProjectError."""
    rows: list[Row] = import_module(f"tests.bench.{part}").rows(data)
    return rows


def make_pair(data: Path) -> None:
    """The data, if it is not there yet. Raises ProjectError."""
    from tests.bench import pair

    pair.make(data)
