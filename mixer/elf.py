"""What the builder has to know of programs and libraries in the format ELF, 64 bits, little-endian. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_INTERPRETER = 3


@dataclass(frozen=True, slots=True)
class Elf:
    """A program or library."""

    machine: int
    """What it runs on: 62 is x86-64, 183 is AArch64."""
    is_static: bool
    """Whether it needs no dynamic loader."""
    end: int
    """Where the last byte is that is loaded; behind it are debug information and the table of sections."""


def read(data: bytes) -> Elf:
    """Raises ValueError for anything else, or a file that is cut off."""
    if not data.startswith(_MAGIC):
        raise ValueError("not ELF with 64 bits")
    try:
        header = _HEADER.unpack_from(data)
        table, size, count = header[5], header[9], header[10]
        segments = [_SEGMENT.unpack_from(data, table + index * size) for index in range(count)]
    except (struct.error, OverflowError) as error:
        raise ValueError("an ELF file that is cut off") from error
    ends = [offset + length for _, _, offset, _, _, length, _, _ in segments]
    end = max([table + size * count, *ends])
    if end > len(data):
        raise ValueError("an ELF file that is cut off")
    return Elf(machine=header[2], is_static=all(kind != _INTERPRETER for kind, *_ in segments), end=end)


def without_sections(data: bytes) -> bytes:
    """A program or library with what is loaded and nothing else: no debug information, no symbols for a linker.

    Raises ValueError as `read` does.
    """
    end = read(data).end
    header = list(_HEADER.unpack_from(data))
    header[6], header[12], header[13] = 0, 0, 0  # place, number and names of the sections
    return _HEADER.pack(*header) + data[_HEADER.size : end]
