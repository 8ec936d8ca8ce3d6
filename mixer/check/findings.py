"""What a check of published files finds: problems, what is worth knowing, and how much was looked at.

What is wrong with one file is taken down, once, and the check goes on with the next one; only the place itself can end
a check (BuildError).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from swupd.errors import ProjectError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something about one published file."""

    file: str
    """Its name in the tree, such as "20/Manifest.MoM"."""
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(slots=True)
class Checked:
    """How much was looked at."""

    manifests: int = 0
    """Those of the version and of its bundles; the archive of one counts as another one."""
    signatures: int = 0
    checksums: int = 0
    """Files that were compared with their SHA-256."""
    fullfiles: int = 0
    packs: int = 0
    members: int = 0
    """Objects and deltas in packs."""
    deltas: int = 0
    """Deltas that were applied; one that lies in several packs counts once."""
    bytes: int = 0
    """Of the files that were read for all this, except for checksums."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    version: int
    problems: tuple[Problem, ...]
    """What is wrong, sorted."""
    notes: tuple[Problem, ...]
    """What is not wrong but worth knowing: files that nobody asks for, deltas that could not be applied."""
    checked: Checked


@dataclass
class Findings:
    """A result that grows. Not thread-safe."""

    checked: Checked = field(default_factory=Checked)
    _problems: set[Problem] = field(default_factory=set)
    _notes: set[Problem] = field(default_factory=set)

    def problem(self, file: str, what: str) -> None:
        self._problems.add(Problem(file, what))

    def note(self, file: str, what: str) -> None:
        self._notes.add(Problem(file, what))

    @contextmanager
    def about(self, file: str) -> Iterator[None]:
        """What is raised inside because of a file's content, or by the system, is a problem of that file."""
        try:
            yield
        except (ProjectError, OSError) as error:
            self.problem(file, reason(error, file))

    def result(self, version: int) -> CheckResult:
        return CheckResult(version, tuple(sorted(self._problems)), tuple(sorted(self._notes)), self.checked)


def reason(error: ProjectError | OSError, file: str) -> str:
    """What went wrong, without the name of the file that it is said of anyway."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error).removeprefix(f"{file}: ")
