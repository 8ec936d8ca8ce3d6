from __future__ import annotations

import random
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.images import verity
from mixer.images.verity import Verity

KIB = 1 << 10
MIB = 1 << 20
SALT = bytes(range(32))
NUMBERS = random.Random(1)


def veritysetup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = ["/usr/sbin/veritysetup", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def options(blocks: int, salt: str) -> list[str]:
    return [
        "--no-superblock",
        "--hash=sha256",
        "--data-block-size=4096",
        "--hash-block-size=4096",
        f"--data-blocks={blocks}",
        f"--salt={salt}",
    ]


def split(image: Path, data_offset: int, made: Verity) -> tuple[Path, Path]:
    """Data and tree as devices of their own, as veritysetup wants them."""
    data, tree = image.with_suffix(".data"), image.with_suffix(".tree")
    content = image.read_bytes()
    data.write_bytes(content[data_offset : data_offset + made.data_blocks * verity.BLOCK])
    tree.write_bytes(content[made.hash_offset : made.hash_offset + made.hash_bytes])
    return data, tree


def accepts(image: Path, data_offset: int, made: Verity) -> bool:
    data, tree = split(image, data_offset, made)
    return not veritysetup("verify", *options(made.data_blocks, made.salt), data, tree, made.root_hash).returncode


def image(path: Path, data: bytes, offset: int = 0) -> Path:
    path.write_bytes(b"a" * offset + data + b"z" * MIB)
    return path


@settings(max_examples=8, deadline=None)
@given(
    blocks=st.integers(2, 300) | st.sampled_from([128, 129, 128 * 128 + 1]),
    salt=st.binary(min_size=1, max_size=256),
)
def test_the_tree_is_that_of_veritysetup(blocks: int, salt: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        data = random.Random(blocks).randbytes(blocks * verity.BLOCK)
        made_by_us = image(Path(place, "image"), data)

        made = verity.append(made_by_us, 0, len(data), len(data) + 64 * KIB, salt=salt)

        plain, tree = Path(place, "plain"), Path(place, "tree")
        plain.write_bytes(data)
        tree.touch()
        done = veritysetup("format", *options(blocks, salt.hex()), plain, tree)
        assert f"Root hash:      \t{made.root_hash}\n" in done.stdout, done.stderr
        assert tree.read_bytes() == split(made_by_us, 0, made)[1].read_bytes()
        assert made.hash_bytes == verity.size(len(data))


@pytest.mark.parametrize("blocks", [1, 2, 128, 129, 1000])
def test_veritysetup_accepts_data_and_tree_within_an_image(tmp_path: Path, blocks: int) -> None:
    made_by_us = image(tmp_path / "image", NUMBERS.randbytes(blocks * verity.BLOCK), 3 * MIB)

    made = verity.append(made_by_us, 3 * MIB, blocks * verity.BLOCK, 8 * MIB, salt=SALT)

    assert (made.data_blocks, made.salt, made.hash_offset) == (blocks, SALT.hex(), 8 * MIB)
    assert accepts(made_by_us, 3 * MIB, made)


@pytest.mark.parametrize("at", ["data", "tree", "root hash", "salt"])
def test_one_changed_byte_is_found(tmp_path: Path, at: str) -> None:
    made_by_us = image(tmp_path / "image", NUMBERS.randbytes(MIB), MIB)
    made = verity.append(made_by_us, MIB, MIB, 3 * MIB, salt=SALT)
    content = bytearray(made_by_us.read_bytes())
    content[{"data": 2 * MIB - 1, "tree": 3 * MIB + 5000}.get(at, 0)] ^= 1
    made_by_us.write_bytes(content)
    if at == "root hash":
        made = replace(made, root_hash="00" + made.root_hash[2:])
    if at == "salt":
        made = replace(made, salt="ff" + made.salt[2:])

    assert not accepts(made_by_us, MIB, made)


def test_nothing_but_the_tree_is_written(tmp_path: Path) -> None:
    made_by_us = image(tmp_path / "image", b"d" * MIB, MIB)

    made = verity.append(made_by_us, MIB, MIB, 2 * MIB, salt=SALT)

    content = made_by_us.read_bytes()
    assert content[: 2 * MIB] == b"a" * MIB + b"d" * MIB
    assert content[2 * MIB + made.hash_bytes :] == b"z" * (MIB - made.hash_bytes)


def test_the_same_data_and_salt_give_the_same_tree(tmp_path: Path) -> None:
    trees = []
    for name, salt in (("first", SALT), ("second", SALT), ("third", SALT[::-1])):
        made_by_us = image(tmp_path / name, b"d" * MIB)
        trees.append((verity.append(made_by_us, 0, MIB, MIB, salt=salt).root_hash, made_by_us.read_bytes()))

    assert trees[0] == trees[1]
    assert trees[0][0] != trees[2][0]


def test_the_parameters_are_those_of_kata_and_of_the_kernel() -> None:
    made = Verity("ab" * 32, "0f" * 32, 512, 4 * MIB, 20480)

    assert made.for_kata == (
        f"root_hash={'ab' * 32},salt={'0f' * 32},data_blocks=512,data_block_size=4096,hash_block_size=4096"
    )
    assert made.for_kernel("/dev/vda1", "/dev/vda2") == (
        'dm-mod.create="dm-verity,,,ro,0 4096 verity 1 /dev/vda1 /dev/vda2 4096 4096 512 0 sha256 '
        f'{"ab" * 32} {"0f" * 32}"'
    )
    assert " 512 7 sha256 " in made.for_kernel("/dev/vda", "/dev/vda", 7)


def test_the_facts_are_all_that_opens_it_again() -> None:
    assert Verity("ab" * 32, "0f" * 32, 512, 4 * MIB, 20480).facts() == {
        "algorithm": "sha256",
        "block_bytes": 4096,
        "root_hash": "ab" * 32,
        "salt": "0f" * 32,
        "data_blocks": 512,
        "hash_offset": 4 * MIB,
        "hash_bytes": 20480,
    }


@pytest.mark.parametrize(
    ("places", "salt", "told"),
    [
        ((0, 0, MIB), SALT, "0 bytes of data are not blocks of 4096 bytes"),
        ((0, 4097, MIB), SALT, "4097 bytes of data are not blocks"),
        ((0, MIB, MIB), b"", "the salt has 0 bytes"),
        ((0, MIB, MIB), bytes(257), "the salt has 257 bytes"),
        ((0, MIB, MIB - 1), SALT, "the tree would lie over the data"),
        ((MIB, MIB, MIB - 8192), SALT, "the tree would lie over the data"),
        ((4 * MIB, MIB, 0), SALT, "the file ends before the data"),
    ],
)
def test_what_makes_no_tree_is_refused(tmp_path: Path, places: tuple[int, int, int], salt: bytes, told: str) -> None:
    made_by_us = image(tmp_path / "image", b"d" * MIB)

    with pytest.raises(ValueError, match=told):
        verity.append(made_by_us, *places, salt=salt)

    assert made_by_us.read_bytes() == b"d" * MIB + b"z" * MIB
