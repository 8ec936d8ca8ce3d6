"""Every error of the builder that a person sees; all of them end the command with exit status 1.

    ProjectError                     (swupd.errors)
    └── MixError                     anything wrong with a mix
        ├── LocatedError             something in a file that people write; the message begins with "file: line n: "
        │   ├── ConfigError          builder.yaml
        │   └── DefinitionError      a bundle definition, or a list of bundle names
        ├── WorkspaceError           the workspace's own files: missing, damaged, in use
        ├── SourceError              the source of content: unreachable, refused, contradictory
        │   └── UnknownPackageError  packages that the source does not have; `packages` names them
        └── BuildError               content that cannot become a version

A source knows packages, not definitions: it raises UnknownPackageError, and `BundleSet.unknown_packages` makes the
DefinitionError with file and line out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from swupd.errors import ProjectError


class MixError(ProjectError):
    """Anything wrong with a mix."""


class LocatedError(MixError):
    """Something wrong at a place in a file; line 0 stands for the file as a whole."""

    def __init__(self, path: str | Path, line: int, message: str, *, hint: str = "") -> None:
        place = f"{path}: line {line}" if line else f"{path}"
        super().__init__(f"{place}: {message}", hint=hint)
        self.path = str(path)
        self.line = line


class ConfigError(LocatedError):
    pass


class DefinitionError(LocatedError):
    pass


class WorkspaceError(MixError):
    pass


class SourceError(MixError):
    pass


class UnknownPackageError(SourceError):
    """Packages that the source does not have."""

    def __init__(self, packages: Iterable[str], *, hint: str = "") -> None:
        self.packages = tuple(sorted(packages))
        plural = "s" if len(self.packages) > 1 else ""
        super().__init__(f"unknown package{plural} {', '.join(self.packages)}", hint=hint)


class BuildError(MixError):
    pass
