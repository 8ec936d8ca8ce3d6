"""An image as a file: complete or not there, with its facts beside it.

* It is written as FILE.part, and gets its name in one step when all of it is on disk. What was there before stays until
  then; after any failure it still is there, and nothing else is.
* FILE.json says what is in it. It is never about another image than FILE: the old one goes before FILE is replaced, and
  the new one, which is on disk by then, gets its name after.

One process at a time writes an image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mixer.errors import BuildError
from swupd.errors import is_disk_full
from swupd.fs import Directory

UNFINISHED = ".part"
FACTS = ".json"

Facts = Mapping[str, object]
"""What FILE.json says: type of the image, version, bundles, hash of the MoM, sizes in bytes, kernel command line, and
what else a type has. The same image has the same facts."""


@contextmanager
def writing(target: Path, facts: Facts) -> Iterator[Path]:
    """The file to write, which is empty; it becomes `target`, with these facts beside it, if the block ends well.

    Raises BuildError if the target cannot be written, and for an OSError of the block.
    """
    if target.exists() and not target.is_file():
        raise BuildError(f"{target} is not a file", hint="name a file for the image with -o")
    beside = target.with_name(target.name + FACTS)
    part, part_beside = (path.with_name(path.name + UNFINISHED) for path in (target, beside))
    try:
        part.unlink(missing_ok=True)
        part_beside.unlink(missing_ok=True)
        try:
            part_beside.write_text(f"{json.dumps(facts, indent=2)}\n")
            part.open("xb").close()
            yield part
            for path in (part, part_beside):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            beside.unlink(missing_ok=True)
            os.rename(part, target)
            os.rename(part_beside, beside)
            with Directory.open(target.parent) as directory:
                directory.sync_names()
        finally:
            part.unlink(missing_ok=True)
            part_beside.unlink(missing_ok=True)
    except OSError as error:
        raise BuildError(
            f"cannot write {target}: {error.strerror or error}",
            hint="free some space, or write it to another file system" if is_disk_full(error) else "",
        ) from error


def allocated(path: Path) -> int:
    """Bytes that a file takes on disk; holes take none."""
    return path.stat().st_blocks * 512
