"""Going from directory to directory of a root by descriptors, for work on many paths.

In tree order (`swupd.plan.tree_order`) each directory is opened once, and no more descriptors are open at a time than
the deepest path has components. How a component is entered is the caller's: `follow` opens what is there, without
following links; the preparation of an installation makes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from swupd.closing import Closing
from swupd.fs import Directory


class Frame(NamedTuple):
    """An open directory of a walk."""

    path: str
    """From the root, which is "": "/usr/bin"."""
    directory: Directory
    fresh: bool = False
    """Made by this run, and not in its place yet."""


class Walker(Closing):
    """A way through a root, which stays the caller's to close. Close the walker, or use it in a `with` statement."""

    def __init__(self, root: Directory, enter: Callable[[Frame, str], Frame]) -> None:
        self._stack = [Frame("", root)]
        self._enter = enter

    def go(self, path: str) -> Frame:
        """The directory at `path`, open until the next call; errors are those of `enter`."""
        while not f"{path}/".startswith(f"{self._stack[-1].path}/"):
            self._stack.pop().directory.close()
        rest = path[len(self._stack[-1].path) + 1 :]
        for component in rest.split("/") if rest else ():
            self._stack.append(self._enter(self._stack[-1], component))
        return self._stack[-1]

    def close(self) -> None:
        while len(self._stack) > 1:
            self._stack.pop().directory.close()


def follow(frame: Frame, component: str) -> Frame:
    """Into a directory that exists; raises what `Directory.descend` does."""
    return Frame(f"{frame.path}/{component}", frame.directory.descend(component))


def split(name: str) -> tuple[str, str]:
    """A name as its directory ("" for the root) and its last component."""
    directory, _, base = name.rpartition("/")
    return directory, base


def parents(name: str) -> Iterator[str]:
    """All directories above a name, nearest first, without the root."""
    while name := name.rpartition("/")[0]:
        yield name
