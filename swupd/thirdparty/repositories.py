"""The 3rd-party repositories of a system: `/opt/3rd-party/repo.ini` (swupd client specification, section 7.1).

* The grammar is strict: `[name]` begins a repository, `url=URL` follows it, lines that begin with `;` or `#` and empty
  lines mean nothing. Any other line, a second repository of that name, and one without URL is an error with file and
  line: nothing is done on the strength of half a file.
* Names are in lower case, whatever the file or the command line says. A name is one component of a path.
* The file is replaced in one step, so readers see all of the old one or all of the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swupd.errors import RepositoryError, UsageError
from swupd.fs import replace_file
from swupd.settings import below, check_url

FILE = "/opt/3rd-party/repo.ini"
FILE_LIMIT = 1 << 20
"""Bytes."""
NAME_LIMIT = 64
"""Characters."""
_NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]*")
_SECTION = re.compile(r"\[(.+)\]")
_URL = "url="


@dataclass(frozen=True)
class Repository:
    """Somebody else's published tree."""

    name: str
    url: str
    """For versions and content."""


def is_name(text: str) -> bool:
    """Whether this is the name of a repository in its one spelling."""
    return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


def check_name(text: str, source: str) -> str:
    """A name in its one spelling; UsageError, naming `source`, if it is none."""
    name = text.lower()
    if not is_name(name):
        raise UsageError(
            f"{source}: '{text}' cannot be the name of a repository",
            hint=f"use at most {NAME_LIMIT} letters, digits and '-_.', not beginning with a dot",
        )
    return name


def read(root: Path) -> tuple[Repository, ...]:
    """The repositories of a system, in the order of the file; UsageError if it cannot be read or understood."""
    path = below(root, FILE)
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="check the file and its permissions") from error
    return parse(data, str(path))


def write(root: Path, repositories: Iterable[Repository]) -> None:
    """Replace the file; its directory must exist."""
    replace_file(below(root, FILE), serialise(repositories))


def parse(data: bytes, name: str) -> tuple[Repository, ...]:
    """The repositories of a file; `name` is for messages. Raises UsageError."""
    if len(data) > FILE_LIMIT:
        raise UsageError(f"{name} is larger than {FILE_LIMIT} bytes", hint="this is no list of repositories")
    urls: dict[str, str] = {}
    begun: tuple[str, str] | None = None
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        where = f"{name}:{number}"
        if not line or line[0] in ";#":
            continue
        section = _SECTION.fullmatch(line)
        if section:
            _complete(begun)
            repository = check_name(section[1], where)
            if repository in urls:
                raise UsageError(f"{where}: there are two repositories '{repository}'", hint="remove one of them")
            begun = (repository, where)
        elif line.startswith(_URL) and begun is not None:
            urls[begun[0]] = check_url(line.removeprefix(_URL), where)
            begun = None
        else:
            raise UsageError(f"{where}: '{line}' does not belong here", hint="write [name], then url=URL below it")
    _complete(begun)
    return tuple(Repository(*item) for item in urls.items())


def serialise(repositories: Iterable[Repository]) -> bytes:
    """The content of the file."""
    return "\n".join(f"[{each.name}]\nurl={each.url}\n" for each in repositories).encode()


def find(repositories: Iterable[Repository], name: str) -> Repository:
    """The repository of a name in any case; RepositoryError if there is none."""
    for repository in repositories:
        if repository.name == name.lower():
            return repository
    raise RepositoryError(
        f"there is no 3rd-party repository '{name}'", hint="list the repositories with: swupd 3rd-party list"
    )


def _complete(begun: tuple[str, str] | None) -> None:
    if begun is not None:
        raise UsageError(f"{begun[1]}: repository '{begun[0]}' has no URL", hint="write url=URL below its name")
