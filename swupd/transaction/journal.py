"""The journal of an installation: what is changed in a root, why, and how far it is.

A journal is one file in the data directory. Its lines are JSON:

* the header: format, root, kept objects, purpose (`Header`);
* one line for each `Change`, in the order in which they are carried out; undoing goes through them backwards;
* the SHA-256 of all that is before it, so that a file that was not written to its end is known.

The file never changes. Its *name* says how far the installation is (`State`), and goes on by renames that are on disk
before the next thing happens. Rules:

* It is on disk before the first call that changes the root, and names everything that is made or goes; so whoever finds
  it need not guess.
* It is written and read as a stream; neither direction holds the changes in memory.
* It is ours alone (0600) and nevertheless not believed: every line is checked before the first one is used, no name
  leads out of the root, and sizes have limits. `JournalError` says that a file is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, BinaryIO, NamedTuple

from swupd.errors import FormatError, UnsafePathError
from swupd.formats.manifest import VERSION_LIMIT, is_bundle_name
from swupd.fs import Directory, components

FORMAT = 1
LINE_BYTES = 1 << 17
"""Longest line of a change: it may have three paths of 4096 bytes, each escaped to at most six times its length."""
HEADER_BYTES = 1 << 20
JOURNAL_BYTES = 1 << 30
NUMBER_LIMIT = 1 << 64
_BLOCK = 1 << 16


class JournalError(FormatError):
    """A file that is no journal, or not all of one."""


class State(Enum):
    """How far an installation is. The values are the names of the file."""

    PREPARING = "journal.preparing"
    """New things are made beside their places, old ones are kept. To be undone."""
    COMMITTED = "journal"
    """All is ready: changes are carried out. To be finished, or else to be undone."""
    UNDOING = "journal.undo"
    """A change was impossible: what was changed is put back. To be undone to the end."""
    INSTALLED = "journal.installed"
    """The files are in place. What follows is to be done."""
    GOING_BACK = "journal.rollback"
    """A finished installation is undone on request. To be undone to the end."""
    GONE_BACK = "journal.rolledback"
    """The old files are in place again. What follows is to be done."""


DAMAGED = "journal.damaged"
"""A file that was found instead of a journal is kept under this name."""
NAME = "journal"
"""All names begin with it."""
FINISHED = "journal"
"""The name of the journal among the kept objects of a finished installation."""


class Action(Enum):
    """What a change does."""

    MADE = "made"
    """Nothing: the object is in a new directory, or is that directory (then it has a `sibling`), and comes with it."""
    PLACE = "place"
    """Rename the sibling to its name, in place of whatever is there; a directory comes with all that was MADE in it."""
    SWAP = "swap"
    """Let the sibling, a file or link, take the place of a directory, which gets the name `aside`."""
    ATTRIBUTES = "attributes"
    """Set mode and owner of a directory that exists."""
    REMOVE = "remove"
    """Remove a file, a link or an empty directory."""
    SYNC = "sync"
    """Wait until all before it is on disk, if several file systems are concerned."""


class Kind(Enum):
    """What an object is."""

    FILE = "f"
    """Also a device and the like: whatever has to be kept as it is."""
    DIRECTORY = "d"
    LINK = "l"


class Old(NamedTuple):
    """What is at a place before a change. A file is kept under a number, all else is told here."""

    kind: Kind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""
    number: int = 0


class Change(NamedTuple):
    """One step, on the name `base` of `directory` ("" is the root)."""

    action: Action
    directory: str = ""
    base: str = ""
    kind: Kind = Kind.FILE
    """MADE, PLACE: of the new object."""
    sibling: str = ""
    """PLACE, SWAP, first MADE of a directory: the name beside it that the new object has now."""
    aside: str = ""
    """A free name beside it: where a directory goes that gives way, and where an object that comes back waits."""
    old: Old | None = None
    """What is there before. A directory that is MADE over a file or link has it, and PLACE does not have it again."""
    was: str = ""
    """REMOVE: the path of an object in a directory that a SWAP has put aside, before that."""
    attributes: tuple[int, int, int] = (0, 0, 0)
    """ATTRIBUTES: mode, uid, gid."""

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.base}"

    @property
    def shown(self) -> str:
        """The path for messages."""
        return self.was or self.path


_NOTHING = Old(Kind.FILE)
_ACTIONS = {action.value: action for action in Action}
_KINDS = {kind.value: kind for kind in Kind}
_MADE = b'["made"'
_SHORT = 4
"""Fields of a change that has nothing but action, path and kind."""
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode


@dataclass(frozen=True)
class Purpose:
    """Why a root is changed, and what has to follow when the files are in place, whoever finishes it."""

    command: str
    """For messages and the history: "update", "bundle-add editors"."""
    from_version: int
    to_version: int
    track: tuple[str, ...] = ()
    """Bundles that count as asked for from then on."""
    untrack: tuple[str, ...] = ()
    boot: bool = False
    """Whether the boot manager has to look."""
    reexec: bool = False
    """Whether systemd itself changes."""
    scripts: bool = True
    """Whether the helpers of the root run."""
    record_version: bool = False
    """Whether the version file is written: true of an update."""
    keep: bool = True
    """Whether it can be rolled back later: not a new system, nor a repair, before which something was wrong."""

    @property
    def title(self) -> str:
        """For messages."""
        versions = f" from {self.from_version} to {self.to_version}" if self.from_version != self.to_version else ""
        return f"{self.command}{versions}"


@dataclass(frozen=True)
class Header:
    """What a journal says about itself."""

    root: str
    identity: tuple[int, int, int]
    """Inode, device and file system of the root, so that another one at the same path is not taken for it."""
    release: tuple[str, str]
    """The SHA-256 of os-release before and after; empty if there is none."""
    number: int
    """Names the directory of what is kept."""
    tolerant: bool
    """Whether paths that cannot be changed are passed over, instead of undoing all the others."""
    purpose: Purpose


class Journal:
    """A journal that is there. Not safe against somebody else who works in the data directory: hold the lock."""

    def __init__(self, data: Directory, state: State, header: Header) -> None:
        self.data = data
        self.state = state
        self.header = header

    @classmethod
    def write(cls, data: Directory, header: Header, changes: Iterable[Change]) -> Journal:
        """Write a new one in the state PREPARING; it is on disk then. On any failure none is left.

        Raises OSError and whatever the iteration over the changes raises.
        """
        data.write_file(State.PREPARING.value, _written(header, changes), durable=True)
        try:
            data.sync_names()
        except BaseException:
            data.unlink(State.PREPARING.value)
            raise
        return cls(data, State.PREPARING, header)

    @classmethod
    def open(cls, data: Directory, state: State, *, only_header: bool = False) -> Journal | None:
        """The journal of this state, checked from beginning to end; None if there is none.

        only_header: the changes are of no interest any more. Raises OSError, JournalError.
        """
        if data.lstat(state.value) is None:
            return None
        return cls(data, state, _check(data, state.value, only_header=only_header))

    def become(self, state: State) -> None:
        """Go on to another state; on disk when this returns."""
        self.data.rename(self.state.value, state.value)
        self.state = state
        self.data.sync_names()

    def remove(self) -> None:
        """Remove the file; that it is gone is on disk when this returns."""
        self.data.unlink(self.state.value)
        self.data.sync_names()

    def forwards(self, *, with_made: bool = True) -> Iterator[Change]:
        """The changes in their order. with_made: whether those are among them that are nothing to do by themselves."""
        return forwards(self.data, self.state.value, with_made=with_made)

    def backwards(self) -> Iterator[Change]:
        return backwards(self.data, self.state.value)


def move(source: Directory, name: str, target: Directory, new: str) -> None:
    """Move a journal to another directory; on disk when this returns. On failure it is where it was, if it can be.

    A power cut may have left it in both, as one file: a rename between names of one file keeps both. Raises OSError.
    """
    source.rename(name, new, to=target)
    try:
        with suppress(FileNotFoundError):
            source.unlink(name)
        target.sync_names()
        source.sync_names()
    except OSError:
        target.rename(new, name, to=source)
        raise


def exists(data_dir: str | os.PathLike[str]) -> bool:
    """Whether a data directory has a journal of an unfinished installation. Needs no privileges, changes nothing."""
    try:
        return not {state.value for state in State}.isdisjoint(os.listdir(data_dir))
    except OSError:
        return False


def finished(kept: Directory) -> Header:
    """The header of the journal among kept objects, all of which is checked. Raises OSError, JournalError."""
    return _check(kept, FINISHED)


def forwards(directory: Directory, name: str, *, with_made: bool = True) -> Iterator[Change]:
    """The changes of a journal that has been checked, in their order. Raises OSError."""
    with directory.open_file(name) as file:
        file.readline(HEADER_BYTES)
        while (line := file.readline(LINE_BYTES)).startswith(b"["):
            if with_made or not line.startswith(_MADE):
                yield _change(line)


def backwards(directory: Directory, name: str) -> Iterator[Change]:
    """The changes of a journal that has been checked, from the last one to the first. Raises OSError, JournalError."""
    with directory.open_file(name) as file:
        lines = _lines_backwards(file)
        next(lines, b"")  # the checksum
        for line in lines:
            if not line.startswith(b"["):
                return
            yield _change(line)


def encode(change: Change) -> bytes:
    """A line. Names that are no UTF-8 are in it as lone surrogates, escaped."""
    action, directory, base, kind, sibling, aside, old, was, attributes = change
    fields: list[Any] = [action.value, directory, base, kind.value]
    if sibling or old is not None or was or action is Action.ATTRIBUTES:
        fields += [sibling, aside, None if old is None else [old.kind.value, *old[1:]], was, *attributes]
    return _to_json(fields).encode() + b"\n"


def decode(line: bytes) -> Change:
    """The change of a line, all of it checked. Raises JournalError."""
    try:
        change = _change(line)
        old = change.old or _NOTHING
        if change.action is not Action.SYNC:
            _check_name(change.base)
        for path in (change.directory, change.was):
            _check_path(path)
        for name in (change.sibling, change.aside):
            if name:
                _check_name(name)
        for number in (old.mode, old.uid, old.gid, old.number, *change.attributes):
            _number(number)
        _text(old.target)
    except (ValueError, TypeError, LookupError, RecursionError, UnsafePathError) as error:
        raise JournalError(f"a line of the journal cannot be understood: {error}") from error
    return change


def _change(line: bytes) -> Change:
    """The change of a line that has been checked, or that is our own."""
    fields = _from_json(line.decode())
    if len(fields) == _SHORT:
        action, directory, base, kind = fields
        return Change(_ACTIONS[action], directory, base, _KINDS[kind])
    action, directory, base, kind, sibling, aside, raw, was, *attributes = fields
    old = None
    if raw is not None:
        old_kind, mode, uid, gid, target, number = raw
        old = Old(_KINDS[old_kind], mode, uid, gid, target, number)
    mode, uid, gid = attributes
    return Change(_ACTIONS[action], directory, base, _KINDS[kind], sibling, aside, old, was, (mode, uid, gid))


def _written(header: Header, changes: Iterable[Change]) -> Iterator[bytes]:
    checksum = hashlib.sha256()
    block = [json.dumps({"format": FORMAT, **asdict(header)}).encode() + b"\n"]
    size = 0
    for change in changes:
        line = encode(change)
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            data = b"".join(block)
            checksum.update(data)
            yield data
            block.clear()
            size = 0
    data = b"".join(block)
    checksum.update(data)
    yield data + checksum.hexdigest().encode() + b"\n"


def _check(directory: Directory, name: str, *, only_header: bool = False) -> Header:
    """Read a journal from beginning to end; its header. Raises JournalError."""
    try:
        file = directory.open_file(name)
    except UnsafePathError as error:
        raise JournalError(str(error)) from error
    with file:
        if os.fstat(file.fileno()).st_size > JOURNAL_BYTES:
            raise JournalError(f"a journal of more than {JOURNAL_BYTES} bytes")
        first = file.readline(HEADER_BYTES)
        header = _header(first)
        if only_header:
            return header
        checksum = hashlib.sha256(first)
        while (line := file.readline(LINE_BYTES)).startswith(b"["):
            decode(line)
            checksum.update(line)
        if line != checksum.hexdigest().encode() + b"\n" or file.read(1):
            raise JournalError("the journal is not complete")
        return header


def _header(line: bytes) -> Header:
    try:
        raw = json.loads(line)
        if raw["format"] != FORMAT:
            raise JournalError(f"a journal of the unknown format {raw['format']!r}")
        purpose = raw["purpose"]
        inode, device, file_system = map(_number, raw["identity"])
        before, after = map(_text, raw["release"])
        return Header(
            root=_absolute(raw["root"]),
            identity=(inode, device, file_system),
            release=(before, after),
            number=_number(raw["number"]),
            tolerant=_flag(raw["tolerant"]),
            purpose=Purpose(
                command=_text(purpose["command"]),
                from_version=_version(purpose["from_version"]),
                to_version=_version(purpose["to_version"]),
                track=tuple(map(_bundle, purpose["track"])),
                untrack=tuple(map(_bundle, purpose["untrack"])),
                **{flag: _flag(purpose[flag]) for flag in ("boot", "reexec", "scripts", "record_version", "keep")},
            ),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise JournalError(f"the header of the journal cannot be understood: {error}") from error


def _lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the last one first, without their ends. Raises JournalError for one that is too long."""
    position = file.seek(0, os.SEEK_END)
    rest = b""
    while position:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        first, *lines = (file.read(size) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest = first
        if len(rest) > HEADER_BYTES:
            raise JournalError("a line of the journal is too long")
    yield rest


def _check_path(value: object) -> None:
    """A path below the root as it is written in a change; empty for the root."""
    path = _text(value)
    if path and "/" + "/".join(components(path)) != path:
        raise ValueError("a path is not canonical")


def _check_name(value: object) -> None:
    name = _text(value)
    if name in ("", ".", "..") or "/" in name:
        raise ValueError("a name is none")


def _absolute(value: object) -> str:
    path = _text(value)
    if not path.startswith("/"):
        raise ValueError("a root is not absolute")
    return path


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("a text is none")
    os.fsencode(value)
    return value


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < NUMBER_LIMIT:
        raise TypeError("a number is none")
    return value


def _version(value: object) -> int:
    number = _number(value)
    if number > VERSION_LIMIT:
        raise ValueError("a version is too high")
    return number


def _bundle(value: object) -> str:
    name = _text(value)
    if not is_bundle_name(name):
        raise ValueError("a bundle name is none")
    return name


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("a flag is none")
    return value


def old_of(status: os.stat_result, *, target: str = "", number: int = 0) -> Old:
    """What a status says, for putting it back. target: of a link. number: under which a file is kept."""
    mode = stat.S_IMODE(status.st_mode)
    return Old(kind_of(status), mode, status.st_uid, status.st_gid, target, number)


def kind_of(status: os.stat_result) -> Kind:
    if stat.S_ISDIR(status.st_mode):
        return Kind.DIRECTORY
    return Kind.LINK if stat.S_ISLNK(status.st_mode) else Kind.FILE
