"""What is said to people about an image that was made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixer.images.tree import ImageTree
from mixer.table import table
from swupd.report import counted, human_size

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Summary:
    """An image that was made."""

    path: Path
    size: str
    """Of the image, or how it was made."""
    version: int
    bundles: int
    files: int
    content: int
    """Bytes of all files."""
    seconds: float
    rows: Sequence[Row] = ()
    """What a type has besides."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """Long texts: title -> text."""

    def table(self) -> str:
        """The summary for people."""
        rows = [
            ("image", str(self.path), self.size),
            ("version", f"{self.version}", counted(self.bundles, "bundle")),
            ("files", f"{self.files}", human_size(self.content)),
            *self.rows,
            ("seconds", f"{self.seconds:.1f}", ""),
        ]
        return "\n".join([table(rows), *(f"{title}: {text}" for title, text in self.lines.items())])


def of(
    tree: ImageTree,
    target: Path,
    size: str,
    started: float,
    *,
    rows: Sequence[Row] = (),
    lines: Mapping[str, str] | None = None,
) -> Summary:
    """The summary of an image of a tree; `started`: when it was begun (monotonic)."""
    return Summary(
        path=target,
        size=size,
        version=tree.version,
        bundles=len(tree.bundles),
        files=len(tree.nodes),
        content=tree.content_bytes,
        seconds=time.monotonic() - started,
        rows=rows,
        lines=lines or {},
    )
