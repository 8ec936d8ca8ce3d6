"""The uncompressed kernel inside of a bzImage, which some machine monitors start, and others start sooner.

A bzImage says where its payload lies (the boot protocol of x86, version 2.08 and later); what comes out is an ELF file
or an error. No more than MAX_BYTES come out, whatever the payload says. Pure.
"""

from __future__ import annotations

import io
import lzma
import struct

from mixer.errors import BuildError
from swupd.errors import ArchiveError
from swupd.formats.compression import Compression, decompressed, detect

MAX_BYTES = 1 << 30
"""Of an uncompressed kernel."""
SECTOR = 512

_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248
"""Offset, from the end of the setup code on, and length of the payload."""
_HEADER_BYTES = 0x250
_PROTOCOL = 0x208
_LZMA = b"\x5d\x00\x00"
_LZ4 = b"\x02\x21\x4c\x18"
_LZ4_BLOCK_BYTES = 8 << 20
_SIZE_BYTES = 4
"""All streams but those of gzip, which do it themselves, are followed by the size of what comes out."""


def extract(kernel: bytes) -> bytes:
    """The ELF file in a bzImage. Raises BuildError."""
    try:
        payload = _payload(kernel)
        found = _unpacked(payload)
    except (ArchiveError, ValueError, lzma.LZMAError) as error:
        raise BuildError(f"no uncompressed kernel can be made: {error}") from error
    if not found.startswith(b"\x7fELF"):
        raise BuildError("no uncompressed kernel can be made: the payload of the kernel is not ELF")
    return found


def _payload(kernel: bytes) -> bytes:
    if len(kernel) < _HEADER_BYTES or kernel[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise ValueError("the kernel is not a bzImage")
    (protocol,) = struct.unpack_from("<H", kernel, _MAGIC + 4)
    if protocol < _PROTOCOL:
        raise ValueError(f"the kernel has version {protocol >> 8}.{protocol & 0xFF:02} of the boot protocol")
    offset, length = struct.unpack_from("<II", kernel, _PAYLOAD)
    # 0 stands for 4: the header is older than the field.
    start = SECTOR * ((kernel[_SETUP_SECTORS] or 4) + 1) + offset
    if not length or start + length > len(kernel):
        raise ValueError("the kernel is shorter than its header says")
    return kernel[start : start + length]


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(b"\x7fELF"):
        return payload
    if detect(payload) is Compression.GZIP:
        return decompressed(io.BytesIO(payload), limit=MAX_BYTES).read()
    stream = payload[:-_SIZE_BYTES]
    if stream.startswith(_LZ4):
        return _lz4(stream)
    if stream.startswith(_LZMA):
        return _lzma(stream)
    if detect(stream) is Compression.NONE:
        raise ValueError("its payload is compressed in a way that is not known here")
    return decompressed(io.BytesIO(stream), limit=MAX_BYTES).read()


def _lzma(stream: bytes) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_BYTES)
    found = unpacker.decompress(stream, MAX_BYTES)
    if not unpacker.eof:
        raise ValueError(f"its payload is cut off, or larger than {MAX_BYTES >> 20} MiB")
    return found


def _lz4(stream: bytes) -> bytes:
    """Blocks with their sizes before them, as the first lz4 wrote them."""
    import lz4.block

    found = io.BytesIO()
    at = len(_LZ4)
    while at < len(stream):
        if at + 4 > len(stream):
            raise ValueError("its payload is cut off")
        (size,) = struct.unpack_from("<I", stream, at)
        at += 4
        if size > len(stream) - at:
            raise ValueError("its payload is cut off")
        try:
            found.write(lz4.block.decompress(stream[at : at + size], uncompressed_size=_LZ4_BLOCK_BYTES))
        except lz4.block.LZ4BlockError as error:
            raise ValueError(f"its payload is damaged: {error}") from error
        at += size
        if found.tell() > MAX_BYTES:
            raise ValueError(f"its payload is larger than {MAX_BYTES >> 20} MiB")
    return found.getvalue()
