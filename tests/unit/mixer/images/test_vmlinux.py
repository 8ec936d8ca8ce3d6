from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from contextlib import suppress

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import vmlinux
from tests.unit.mixer.images.bzimage import image

ELF = b"\x7fELF" + bytes(range(256)) * 100


def with_size(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """As the kernel's Makefile does it: the size of the content stands behind the stream."""
    return lambda data: compress(data) + struct.pack("<I", len(data))


def lz4_legacy(data: bytes) -> bytes:
    blocks = [lz4.block.compress(data[at : at + 10_000], store_size=False) for at in range(0, len(data), 10_000)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": with_size(bz2.compress),
    "xz": with_size(lzma.compress),
    "lzma": with_size(lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    "zstd": with_size(zstandard.compress),
    "lz4": with_size(lz4_legacy),
    "none": lambda data: data,
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_kernel_comes_out_however_it_is_compressed(name: str) -> None:
    assert vmlinux.extract(image(COMPRESSORS[name](ELF))) == ELF


def test_no_number_of_setup_sectors_stands_for_four() -> None:
    assert vmlinux.extract(image(gzip.compress(ELF), sectors=0)) == ELF


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (b"", "not a bzImage"),
        (bytes(5000), "not a bzImage"),
        (image(ELF, protocol=0x207), "version 2.07 of the boot protocol"),
        (image(ELF, length=10**6), "shorter than its header says"),
        (image(b""), "shorter than its header says"),
        (image(b"LZO something"), "not known here"),
        (image(gzip.compress(b"no ELF")), "is not ELF"),
        (image(gzip.compress(ELF)[:-9]), "no uncompressed kernel"),
        (image(COMPRESSORS["lz4"](ELF)[:-60]), "cut off"),
        (image(COMPRESSORS["lzma"](ELF)[:-60]), "cut off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "kernel",
)
def test_what_is_no_kernel_is_one_line(kernel: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        vmlinux.extract(kernel)


@pytest.mark.parametrize("name", sorted(COMPRESSORS.keys() - {"none"}))
def test_no_more_than_the_limit_comes_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = image(COMPRESSORS[name](b"\x7fELF" + bytes(40 << 20)))
    monkeypatch.setattr(vmlinux, "MAX_BYTES", 20 << 20)
    with pytest.raises(BuildError):
        vmlinux.extract(kernel)


@settings(deadline=None)
@given(st.sampled_from(sorted(COMPRESSORS)), st.data())
def test_a_damaged_kernel_is_an_error_or_still_a_kernel(name: str, data: st.DataObject) -> None:
    kernel = bytearray(image(COMPRESSORS[name](ELF)))
    for _ in range(data.draw(st.integers(1, 4))):
        kernel[data.draw(st.integers(0, len(kernel) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BuildError):
        assert vmlinux.extract(bytes(kernel)).startswith(b"\x7fELF")
