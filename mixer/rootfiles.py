"""Files that the builder itself puts into a root: one by one, or as a tree of mixer/osfiles with its units enabled.

* What is in the way is replaced, but for directories. Directories that lead to a file are made.
* Names are canonical: links in parent directories are followed inside the root, and nothing is written outside of it.
* What begins like a script can be executed; everything belongs to whoever builds.
* Units are enabled by links below /usr/lib, as their own [Install] sections say.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from importlib.resources import files
from pathlib import Path

from mixer.errors import BuildError
from mixer.sources.dpkg import Canonical

UNITS = "/usr/lib/systemd/system"
DIRECTORY_MODE = 0o755
PROGRAM_MODE = 0o755
FILE_MODE = 0o644


class RootFiles:
    """What is written into a root, and what it is called there. Methods raise BuildError, and OSError of the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._canonical = Canonical(str(root))
        self.names: set[str] = set()
        """Of all files and links that were written, canonical."""

    def tree(self, name: str, *, not_enabled: Collection[str] = ()) -> None:
        """A tree of mixer/osfiles, with its units enabled but for these."""
        base = Path(str(files("mixer") / "osfiles" / name))
        found = [path for path in sorted(base.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]
        for path in found:
            data = path.read_bytes()
            mode = PROGRAM_MODE if data.startswith(b"#!") else FILE_MODE
            self.file(f"/{path.relative_to(base)}", data, mode)
        for path in found:
            if f"/{path.parent.relative_to(base)}" == UNITS and path.name not in not_enabled:
                self.enable(path.name)

    def file(self, name: str, data: bytes, mode: int = FILE_MODE) -> str:
        """Write a file; its canonical name."""
        name = self._canonical(name)
        place = self._place(name)
        with open(place, "xb") as stream:
            stream.write(data)
        os.chmod(place, mode)
        return name

    def link(self, name: str, target: str) -> None:
        os.symlink(target, self._place(self._canonical(name)))

    def enable(self, unit: str) -> None:
        """What `systemctl enable` does, but below /usr; a unit that is not there is left alone."""
        units = [unit]
        for name in units:
            path = Path(f"{self._root}{self._canonical(f'{UNITS}/{name}')}")
            if not path.is_file():
                continue
            for key, value in _install_section(path.read_text()):
                match key:
                    case "WantedBy":
                        self.link(f"{UNITS}/{value}.wants/{name}", f"../{name}")
                    case "RequiredBy":
                        self.link(f"{UNITS}/{value}.requires/{name}", f"../{name}")
                    case "Alias":
                        self.link(f"{UNITS}/{value}", name)
                    case "Also" if value not in units:
                        units.append(value)

    def _place(self, name: str) -> str:
        """Where an object of this canonical name is to be made; what leads there is made, what was there is gone."""
        parent = str(self._root)
        for part in name.split("/")[1:-1]:
            parent += f"/{part}"
            if not os.path.isdir(parent):
                os.mkdir(parent)
                os.chmod(parent, DIRECTORY_MODE)
        place = f"{self._root}{name}"
        if os.path.isdir(place) and not os.path.islink(place):
            raise BuildError(f"{name} is a directory in the root, but has to be a file that the builder writes")
        if os.path.lexists(place):
            os.unlink(place)
        self.names.add(name)
        return place


def _install_section(text: str) -> Iterator[tuple[str, str]]:
    """Key and value of all that stands in the section [Install] of a unit, one word after the other."""
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Install]" and not line.startswith(("#", ";")):
            key, _, words = line.partition("=")
            yield from ((key.strip(), word) for word in words.split())
