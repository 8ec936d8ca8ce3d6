"""Manifests: what a version of a bundle consists of, and (the MoM) which bundles a version of the OS consists of.

Specification: sections 2.1 to 2.4 of the swupd client specification, 7.1 and 7.6 of the mixer specification.

`parse` guarantees of what it returns:

* every number is within the limits below; every name of a file is absolute and canonical (no empty, `.` or `..`
  component, no control character), every name of a MoM is one that a bundle may have;
* an entry is present and has a type and a hash, or it is deleted or ghosted and has neither;
* at least one entry, and no two present and no two absent entries of one name (see `_refuse_duplicates`);
* exactly the lines of this machine: of several CPU variants of a file the best one, old iterative lines (type I)
  and variants of the future left out; flags without a meaning today read as `.`.

Anything else is a ManifestError that names manifest and line; arbitrary bytes raise nothing else. What `serialise`
returns satisfies the same rules, so that nothing is published which no client reads. Both are pure and may run on any
thread. Names are `str` as `os.fsdecode` makes them, whatever their bytes are.

Parsing has to be quick (450,000 lines in less than two seconds): one regular expression runs over the whole body, and
what can be judged once per distinct flags or version is. Only a body that was refused is looked at line by line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, NoReturn, Self

from swupd.errors import ManifestError
from swupd.formats.filehash import ZERO_HASH
from swupd.formats.layout import RESERVED_NAMES

MANIFEST_BYTES_LIMIT = 512 * 1024 * 1024
"""Bytes of a manifest."""
LINE_BYTES_LIMIT = 8191
"""Bytes of a line without its LF (the original's buffer is twice PATH_MAX)."""
HEADER_LINES_LIMIT = 20_000
"""Lines of a header, includes being the ones that are many."""
ENTRIES_LIMIT = 4_000_000
"""Lines of a body, and the largest `filecount`."""
CONTENT_BYTES_LIMIT = 2 * 10**12
"""Bytes of a bundle's files, the largest `contentsize`."""
VERSION_LIMIT = 2**31 - 1
"""The largest version and the largest format; the original's are 32 bits wide."""
TIMESTAMP_LIMIT = 253_402_300_799
"""Seconds since 1970; the end of the year 9999."""
BUNDLE_NAME_LIMIT = 160
"""Characters of a bundle's name, so that every file name made with it (and a hash) is one that file systems take."""

BUNDLE_NAME = re.compile(rf"[A-Za-z0-9_+][A-Za-z0-9_+.-]{{0,{BUNDLE_NAME_LIMIT - 1}}}")

MINVERSION_SINCE = 26
EXPERIMENTAL_SINCE = 27
ALSO_ADD_SINCE = 29
"""The first format with the header line or flag of the name."""
SMALL_CONTENT_FORMAT = 25
SMALL_CONTENT_BYTES = 1_999_999_999
"""Clients of that format read no larger `contentsize`."""


class FileType(StrEnum):
    """First flag."""

    FILE = "F"
    DIRECTORY = "D"
    LINK = "L"
    MANIFEST = "M"
    NONE = "."


class Status(StrEnum):
    """Second flag."""

    PRESENT = "."
    DELETED = "d"
    GHOSTED = "g"
    EXPERIMENTAL = "e"


class Level(IntEnum):
    """What a machine's processor can do; each level is preferred to the ones before."""

    SSE = 0
    AVX2 = 1
    AVX512 = 2
    APX = 3


BASE_LEVELS = frozenset({Level.SSE})
"""What every machine supports, and all that is used for a root other than "/"."""


def _variants() -> dict[str, tuple[Level, frozenset[Level]]]:
    sse, avx2, avx512, apx = Level
    table = (
        (".", sse, ()),
        ("a", sse, (avx2,)),
        ("c", sse, (avx512,)),
        ("d", sse, (avx2, avx512)),
        ("e", avx2, (avx2,)),
        ("f", avx2, (avx2, avx512)),
        ("g", avx512, (avx512,)),
        ("h", avx512, (avx2, avx512)),
        ("i", sse, (apx,)),
        ("j", sse, (avx2, apx)),
        ("k", sse, (avx512, apx)),
        ("l", sse, (avx2, avx512, apx)),
        ("m", avx2, (avx2, apx)),
        ("n", avx2, (avx2, avx512, apx)),
        ("o", avx512, (avx512, apx)),
        ("p", avx512, (avx2, avx512, apx)),
        ("q", apx, (apx,)),
        ("r", apx, (avx2, apx)),
        ("t", apx, (avx512, apx)),
        ("u", apx, (avx2, avx512, apx)),
    )
    return {letter: (level, frozenset({sse, *others})) for letter, level, others in table}


VARIANTS: Mapping[str, tuple[Level, frozenset[Level]]] = _variants()
"""Third flag: the level of this line, and the levels for which the name has a line (section 2.4)."""
RESERVED_VARIANTS = frozenset("vwxyzABDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#^*")
"""Third flags of the future; such lines are for machines that this client does not know."""
OLD_MODIFIERS = frozenset("bsC")
"""Third flags of the past (boot, state, configuration); files are classified by path today."""

EXPORTED = "x"
"""Fourth flag of a program that wrappers make callable; all others have lost their meaning."""


class Entry(NamedTuple):
    """One line: a file, or in a MoM a bundle."""

    flags: str
    """Four characters: type, status, CPU variant, exported."""
    hash: str
    """Of the object, or of the manifest file; ZERO_HASH if deleted or ghosted."""
    version: int
    """In whose directory the object, or the bundle's manifest, is published."""
    name: str

    @classmethod
    def present(
        cls,
        type: FileType,  # noqa: A002
        hash: str,  # noqa: A002
        version: int,
        name: str,
        *,
        exported: bool = False,
        experimental: bool = False,
    ) -> Self:
        status = Status.EXPERIMENTAL if experimental else Status.PRESENT
        return cls(f"{type}{status}.{EXPORTED if exported else '.'}", hash, version, name)

    @classmethod
    def deleted(cls, version: int, name: str) -> Self:
        return cls(".d..", ZERO_HASH, version, name)

    @classmethod
    def ghosted(cls, version: int, name: str) -> Self:
        return cls(".g..", ZERO_HASH, version, name)

    @property
    def type(self) -> FileType:
        return FileType(self.flags[0])

    @property
    def status(self) -> Status:
        return Status(self.flags[1])

    @property
    def is_present(self) -> bool:
        return self.flags[1] in ".e"

    @property
    def is_deleted(self) -> bool:
        return self.flags[1] == "d"

    @property
    def is_ghosted(self) -> bool:
        """Gone from the OS, but not removed by an updater: the boot manager cleans it up."""
        return self.flags[1] == "g"

    @property
    def is_experimental(self) -> bool:
        return self.flags[1] == "e"

    @property
    def is_exported(self) -> bool:
        return self.flags[3] == EXPORTED


def sort_key(entry: Entry) -> tuple[int, bytes]:
    """The order in which entries are published: by version, then bytewise by name."""
    return entry.version, os.fsencode(entry.name)


def is_bundle_name(name: str) -> bool:
    """May a bundle be called so? Reserved names may not, nor names that would be hidden files or options."""
    return BUNDLE_NAME.fullmatch(name) is not None and name not in RESERVED_NAMES


@dataclass(frozen=True)
class Manifest:
    """A manifest's header and entries; `timestamp` in seconds since 1970, `contentsize` in bytes."""

    format: int
    version: int
    previous: int
    timestamp: int
    contentsize: int
    minversion: int = 0
    includes: tuple[str, ...] = ()
    also_add: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def parse(
    data: bytes,
    *,
    name: str,
    levels: frozenset[Level] = BASE_LEVELS,
    is_mom: bool = False,
    former: Manifest | None = None,
) -> Manifest:
    """Read a manifest; the MoM with `is_mom`, which has bundles as entries where all other manifests have files.

    `name` is the bundle's, for messages; `levels` is what the machine supports. Entries that are equal to some of
    `former` are the same objects, so that two versions of a large bundle need little more memory than one. Raises
    ManifestError.
    """
    if len(data) > MANIFEST_BYTES_LIMIT:
        _refuse(name, 0, f"more than {MANIFEST_BYTES_LIMIT} bytes")
    if not data.endswith(b"\n"):
        _refuse(name, 0, "the last line is incomplete")
    header, separator, body = data.partition(b"\n\n")
    if not separator:
        _refuse(name, 0, "no empty line after the header")
    if not body:
        _refuse(name, 0, "no entries")
    fields, includes, also_add = _parse_header(header, name)
    first_line = header.count(b"\n") + 3
    entries = _parse_body(body, first_line, name, levels, is_mom=is_mom)
    if former is not None:
        known = dict(zip(former.entries, former.entries, strict=True))
        entries = tuple([known.get(entry, entry) for entry in entries])
    return Manifest(
        format=fields["MANIFEST"],
        version=fields["version:"],
        previous=fields["previous:"],
        timestamp=fields["timestamp:"],
        contentsize=fields["contentsize:"],
        minversion=fields.get("minversion:", 0),
        includes=includes,
        also_add=also_add,
        entries=entries,
    )


def serialise(manifest: Manifest, *, name: str = "") -> bytes:
    """The file that a manifest is published as: the header lines and flags that clients of its format know, and the
    entries in the order given. It is a MoM if its first entry is a bundle.

    `name` is the bundle's, for messages. Raises ManifestError for what `parse` would refuse, such as a file name with
    a line break.
    """
    experimental = manifest.format >= EXPERIMENTAL_SINCE
    small = manifest.format == SMALL_CONTENT_FORMAT
    lines = [
        f"MANIFEST\t{manifest.format}",
        f"version:\t{manifest.version}",
        f"previous:\t{manifest.previous}",
    ]
    if manifest.minversion and manifest.format >= MINVERSION_SINCE:
        lines.append(f"minversion:\t{manifest.minversion}")
    lines += [
        f"filecount:\t{len(manifest.entries)}",
        f"timestamp:\t{manifest.timestamp}",
        f"contentsize:\t{min(manifest.contentsize, SMALL_CONTENT_BYTES) if small else manifest.contentsize}",
    ]
    lines += [f"includes:\t{bundle}" for bundle in manifest.includes]
    if manifest.format >= ALSO_ADD_SINCE:
        lines += [f"also-add:\t{bundle}" for bundle in manifest.also_add]
    lines.append("")
    for flags, file_hash, version, path in manifest.entries:
        if flags[1] == "e" and not experimental:
            flags = f"{flags[0]}.{flags[2:]}"
        lines.append(f"{flags}\t{file_hash}\t{version}\t{path}")
    lines.append("")
    data = os.fsencode("\n".join(lines))
    if data.count(b"\n") != len(lines) - 1:
        broken = next(line for line in lines if "\n" in line)
        _refuse(name, 0, f"a name with a line break: {_show(broken)}")
    parse(data, name=name, is_mom=any(entry.flags[0] == FileType.MANIFEST for entry in manifest.entries[:1]))
    return data


_NUMBERS: Mapping[str, tuple[int, int]] = {
    "MANIFEST": (1, VERSION_LIMIT),
    "version:": (1, VERSION_LIMIT),
    "previous:": (0, VERSION_LIMIT),
    "minversion:": (0, VERSION_LIMIT),
    "filecount:": (1, ENTRIES_LIMIT),
    "timestamp:": (1, TIMESTAMP_LIMIT),
    "contentsize:": (0, CONTENT_BYTES_LIMIT),
}
"""Header lines that are numbers, with their smallest and largest values."""
_OPTIONAL = frozenset({"minversion:"})

_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_HASH = re.compile(r"[0-9a-f]{64}")

_START = r"^(?:I...\t.*|([!-~]{4})\t([0-9a-f]{64})\t([1-9][0-9]{0,9})\t"
_FILE_LINE = re.compile(_START + r"((?:/(?!\.\.?(?:/|$))[^/\x00-\x1f\x7f]+)+))$", re.MULTILINE)
_BUNDLE_LINE = re.compile(_START + r"([A-Za-z0-9_+.-]+))$", re.MULTILINE)
"""A whole line as four groups, which are empty for an old iterative manifest (type I).

No possessive quantifiers: with them Python before 3.11.5, and that is Debian 12's, accepts "/usr/". Nor is there
anything to gain, because a component can end in one place only.
"""

_Line = tuple[str, str, str, str]


def _parse_header(header: bytes, name: str) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """The numbers by key, includes and also-adds; keys that are not ours are left to whoever knows them."""
    numbers: dict[str, int] = {}
    bundles: dict[str, list[str]] = {"includes:": [], "also-add:": []}
    lines = os.fsdecode(header).split("\n", HEADER_LINES_LIMIT)
    if len(lines) > HEADER_LINES_LIMIT:
        _refuse(name, 0, f"a header of more than {HEADER_LINES_LIMIT} lines")
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_BYTES_LIMIT:
            _refuse(name, number, f"a line of more than {LINE_BYTES_LIMIT} bytes")
        key, tab, value = line.partition("\t")
        if (number == 1) != (key == "MANIFEST"):
            _refuse(name, number, f'"MANIFEST" and the format belong in the first line, and only there: {_show(line)}')
        if not tab:
            _refuse(name, number, f"a header line without a tab: {_show(line)}")
        if key in _NUMBERS:
            if key in numbers:
                _refuse(name, number, f"a second {_show(key)}")
            low, high = _NUMBERS[key]
            if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
                _refuse(name, number, f"{key} is not a number from {low} to {high}: {_show(value)}")
            numbers[key] = int(value)
        elif key in bundles:
            if not is_bundle_name(value):
                _refuse(name, number, f"not the name of a bundle: {_show(value)}")
            bundles[key].append(value)
    missing = [key for key in _NUMBERS if key not in numbers and key not in _OPTIONAL]
    if missing:
        _refuse(name, 0, f"the header has no {missing[0]}")
    return numbers, tuple(bundles["includes:"]), tuple(bundles["also-add:"])


def _parse_body(
    body: bytes, first_line: int, name: str, levels: frozenset[Level], *, is_mom: bool
) -> tuple[Entry, ...]:
    count = body.count(b"\n")
    if count > ENTRIES_LIMIT:
        _refuse(name, 0, f"more than {ENTRIES_LIMIT} entries")
    pattern = _BUNDLE_LINE if is_mom else _FILE_LINE
    found: list[_Line] = pattern.findall(os.fsdecode(body))
    if len(found) != count or max(map(len, body.split(b"\n"))) > LINE_BYTES_LIMIT:
        _explain(body, first_line, name, is_mom=is_mom)

    flags: dict[str, str | None] = {"": None}
    for text in dict.fromkeys(line[0] for line in found):
        try:
            if text:
                flags[text] = _read_flags(text, levels, is_mom=is_mom)
        except ValueError as error:
            _refuse(name, _line_of(found, first_line, 0, text), str(error))
    versions: dict[str, int] = {}
    for text in dict.fromkeys(line[2] for line in found):
        versions[text] = int(text or "0")
        if versions[text] > VERSION_LIMIT:
            _refuse(name, _line_of(found, first_line, 2, text), f"a version larger than {VERSION_LIMIT}: {text}")
    absent = {text: text[1:2] in {"d", "g"} for text in flags}
    for number, (text, file_hash, _, _) in enumerate(found, first_line):
        if (file_hash == ZERO_HASH) is not absent[text]:
            what = "an absent entry with a hash" if absent[text] else "a present entry without a hash"
            _refuse(name, number, what)

    entries = tuple(
        [
            Entry(read, file_hash, versions[version], path)
            for text, file_hash, version, path in found
            if (read := flags[text]) is not None
        ]
    )
    if not entries:
        _refuse(name, 0, "no entries for this machine")
    if is_mom:
        for entry in entries:
            if not is_bundle_name(entry.name):
                _refuse(name, _line_of(found, first_line, 3, entry.name), f"not a bundle name: {_show(entry.name)}")
    _refuse_duplicates(entries, found, first_line, name)
    return entries


def _read_flags(flags: str, levels: frozenset[Level], *, is_mom: bool) -> str | None:
    """Flags as entries have them; None for a line that is not for this machine. ValueError says what is wrong.

    The original tolerates types and states that it does not know. We refuse them: nobody can say what has to be done
    with such an entry, and to leave it out is to install half a bundle.
    """
    type_, status, variant, misc = tuple(flags)
    absent = status in {Status.DELETED, Status.GHOSTED}
    if status not in set(Status):
        raise ValueError(f"unknown status: {_show(flags)}")
    if type_ not in ({"M"} if is_mom else {"F", "D", "L"}) and not (absent and type_ == FileType.NONE):
        raise ValueError(f"unknown type in a {'MoM' if is_mom else 'bundle manifest'}: {_show(flags)}")
    if variant in RESERVED_VARIANTS:
        return None
    if variant in OLD_MODIFIERS:
        variant = "."
    if variant not in VARIANTS:
        raise ValueError(f"unknown CPU variant: {_show(flags)}")
    level, available = VARIANTS[variant]
    if level != max(available & (levels | BASE_LEVELS)):
        return None
    if absent:
        # A bundle that is gone is simply not in the MoM; old servers may have said it explicitly.
        return None if is_mom else f".{status}.."
    return f"{type_}{status}{variant}{EXPORTED if misc == EXPORTED else '.'}"


def _refuse_duplicates(entries: tuple[Entry, ...], found: list[_Line], first_line: int, name: str) -> None:
    """One present and one absent line of a name may stand together; two of a kind may not.

    Builders make manifests from a mapping by path, so real content has no two lines of one name after the selection of
    a variant. The exception are old servers, which wrote a renamed file as deleted and present: the present one counts
    (section 5.5), so that nothing has to be guessed. Of two present lines one would be installed and the other one
    missed by every verification; the original silently drops both, which removes the file from the system.
    """
    if len({entry.name for entry in entries}) == len(entries):
        return
    seen: set[tuple[str, bool]] = set()
    for entry in entries:
        key = (entry.name, entry.is_present)
        if key in seen:
            number = max(number for number, line in enumerate(found, first_line) if line[3] == entry.name)
            _refuse(name, number, f"listed twice: {_show(entry.name)}")
        seen.add(key)


def _line_of(found: list[_Line], first_line: int, field: int, value: str) -> int:
    """The first line with this text in this field."""
    return next(number for number, line in enumerate(found, first_line) if line[field] == value)


def _explain(body: bytes, first_line: int, name: str, *, is_mom: bool) -> NoReturn:
    """Refuse a body of which a line does not match, with the line and the reason."""
    pattern = _BUNDLE_LINE if is_mom else _FILE_LINE
    for number, raw in enumerate(body.removesuffix(b"\n").split(b"\n"), first_line):
        line = os.fsdecode(raw)
        if not raw:
            _refuse(name, number, "an empty line")
        if len(raw) > LINE_BYTES_LIMIT:
            _refuse(name, number, f"a line of more than {LINE_BYTES_LIMIT} bytes")
        if pattern.fullmatch(line):
            continue
        fields = line.split("\t", 3)
        if len(fields) < 4:
            _refuse(name, number, f"not four fields with tabs between them: {_show(line)}")
        flags, file_hash, version, path = fields
        if len(flags) != 4:
            _refuse(name, number, f"not four flags: {_show(flags)}")
        if not _HASH.fullmatch(file_hash):
            _refuse(name, number, f"not a hash: {_show(file_hash)}")
        if not _NUMBER.fullmatch(version) or version == "0":
            _refuse(name, number, f"not a version: {_show(version)}")
        _refuse(name, number, f"not {'a bundle name' if is_mom else 'a canonical absolute path'}: {_show(path)}")
    _refuse(name, 0, "malformed entries")


def _show(text: str) -> str:
    """Text from outside in a message: short, one line, no control characters."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _refuse(name: str, line: int, what: str) -> NoReturn:
    where = f"manifest {name or '(unnamed)'}" + (f", line {line}" if line else "")
    raise ManifestError(
        f"{where}: {what}",
        hint="the manifest is damaged or was made by an unknown version of mixer; report it to the publisher of the OS",
    )
