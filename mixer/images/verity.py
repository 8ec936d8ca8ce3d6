"""The hash tree of dm-verity, by which a kernel finds every changed byte of a file system when it reads it.

Why not `veritysetup format`: it takes the data from the beginning of a file only, and in an image they lie in a
partition. The tree is the same: sha256, format 1, blocks of 4 KiB, no super block; what `veritysetup verify` accepts.

    data     block 0, block 1, ...
    tree     root level (one block), the level below it, ..., the level of the data blocks

A block of the tree has the digests of up to 128 blocks of the level below, and zeros; a digest is that of the salt and
the block. The digest of the root level, or of a single data block, is the root hash: whoever has it from a safe place,
such as a signed kernel command line, needs to trust nothing else. The same data and salt give the same bytes.

One GiB takes a second or two, and 8 MiB of memory for the digests of its blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

BLOCK = 4096
MAX_SALT = 256
"""Bytes; the kernel takes no more."""

_DIGESTS = BLOCK // sha256().digest_size
"""In a block."""
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Verity:
    """What a kernel has to know of a tree."""

    root_hash: str
    salt: str
    """Hexadecimal, as the root hash is."""
    data_blocks: int
    hash_offset: int
    """Where the tree lies in the file, and how long it is, in bytes."""
    hash_bytes: int

    def facts(self) -> dict[str, object]:
        """What FILE.json of an image says of it."""
        return {"algorithm": "sha256", "block_bytes": BLOCK, **asdict(self)}

    @property
    def for_kata(self) -> str:
        """The parameters as Kata Containers has them, in a file beside its image."""
        sizes = f"data_blocks={self.data_blocks},data_block_size={BLOCK},hash_block_size={BLOCK}"
        return f"root_hash={self.root_hash},salt={self.salt},{sizes}"

    def for_kernel(self, data: str, tree: str, start: int = 0) -> str:
        """The part of a kernel command line by which the kernel itself makes /dev/dm-0 of two devices, such as
        "/dev/vda1"; the tree begins at block `start` of its device."""
        target = (
            f"verity 1 {data} {tree} {BLOCK} {BLOCK} {self.data_blocks} {start} sha256 {self.root_hash} {self.salt}"
        )
        return f'dm-mod.create="dm-verity,,,ro,0 {self.data_blocks * BLOCK // _SECTOR} {target}"'


def size(data_size: int) -> int:
    """The bytes of the tree of so many bytes of data. Raises ValueError unless they are blocks."""
    return sum(_levels(_blocks(data_size))) * BLOCK


def append(path: Path, data_offset: int, data_size: int, hash_offset: int, *, salt: bytes) -> Verity:
    """Write the tree of `data_size` bytes at `data_offset` of a file to `hash_offset` of it; all in bytes.

    Raises ValueError for data that are not blocks, lie under the tree or are not all there, and for no or too much
    salt; OSError.
    """
    hash_bytes = size(data_size)
    if not 0 < len(salt) <= MAX_SALT:
        raise ValueError(f"the salt has {len(salt)} bytes")
    if data_offset < hash_offset + hash_bytes and hash_offset < data_offset + data_size:
        raise ValueError("the tree would lie over the data")
    with path.open("r+b") as file:
        file.seek(data_offset)
        digests = _digests(_read(file, _blocks(data_size)), salt)
        levels: list[bytes] = []
        for blocks in _levels(_blocks(data_size)):
            levels.append(digests.ljust(blocks * BLOCK, b"\0"))
            digests = _digests((levels[-1][at : at + BLOCK] for at in range(0, blocks * BLOCK, BLOCK)), salt)
        file.seek(hash_offset)
        file.writelines(reversed(levels))
    return Verity(digests.hex(), salt.hex(), _blocks(data_size), hash_offset, hash_bytes)


def _blocks(data_size: int) -> int:
    if data_size <= 0 or data_size % BLOCK:
        raise ValueError(f"{data_size} bytes of data are not blocks of {BLOCK} bytes")
    return data_size // BLOCK


def _levels(blocks: int) -> Iterator[int]:
    """Blocks of each level of the tree, the root level last."""
    while blocks > 1:
        blocks = -(-blocks // _DIGESTS)
        yield blocks


def _read(file: BinaryIO, blocks: int) -> Iterator[bytes]:
    for _ in range(blocks):
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise ValueError("the file ends before the data")
        yield block


def _digests(blocks: Iterable[bytes], salt: bytes) -> bytes:
    salted = sha256(salt)
    digests = bytearray()
    for block in blocks:
        digest = salted.copy()
        digest.update(block)
        digests += digest.digest()
    return bytes(digests)
