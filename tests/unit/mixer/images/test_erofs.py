from __future__ import annotations

import os
import random
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import erofs
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

MIB = 1 << 20
ID = UUID("6e1a2f9c-0d8b-4c53-9a51-2b7f6f0d9a11")
TIME = 1_700_000_000
AS_ROOT = os.geteuid() == 0
SIZES = (0, 1, 4095, 4096, 4097, 8192, 300_000)

Tree = Mapping[str, "Entry"]


class Entry(NamedTuple):
    """What is at a path."""

    type: FileType
    content: bytes = b""
    """Of a link, its target."""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


def directory(mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry(FileType.DIRECTORY, b"", mode, owner)


def file(content: bytes = b"", mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry(FileType.FILE, content, mode, owner)


def link(target: str) -> Entry:
    return Entry(FileType.LINK, os.fsencode(target), 0o777)


def nodes_of(tree: Tree) -> list[Node]:
    """As a tree of a published version has them: sorted, and the same object has the same hash."""
    nodes = []
    for path, entry in sorted(tree.items(), key=lambda item: os.fsencode(item[0])):
        size = len(entry.content) if entry.type is FileType.FILE else 0
        target = os.fsdecode(entry.content) if entry.type is FileType.LINK else ""
        nodes.append(Node(path, entry.type, entry.mode, *entry.owner, size, target, repr(entry)))
    return nodes


class Image:
    """An image in a file, judged by the programs of erofs-utils."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []

    def write(self, tree: Tree, *, offset: int = 0, label: str = "os", time: int = TIME) -> int:
        def content(node: Node) -> bytes:
            self.asked.append(node.path)
            return tree[node.path].content

        with self.path.open("w+b") as target:
            return erofs.write(target, offset, nodes_of(tree), content, uuid=ID, label=label, time=time)

    def check(self) -> None:
        assert run("fsck.erofs", self.path) == ""

    def holds(self, tree: Tree) -> None:
        """A reader that is not ours finds this tree, and nothing else."""
        target = self.path.with_suffix(".extracted")
        preserve = "--preserve" if AS_ROOT else "--no-preserve"
        run("fsck.erofs", f"--extract={target}", preserve, self.path)
        paths = [os.path.join(above, name) for above, *names in os.walk(target) for name in (*names[0], *names[1])]
        found = {path.removeprefix(str(target)): _found(path) for path in paths}
        assert found == {path: _comparable(entry) for path, entry in tree.items()}
        assert {os.lstat(path).st_mtime_ns for path in (target, *paths)} == {TIME * 10**9}

    def about(self, path: str) -> str:
        return run("dump.erofs", f"--path={path}", self.path)

    def inode(self, path: str) -> tuple[int, int, int, int]:
        """The size of an inode in bytes, its mode, uid and gid; of the mode, `dump.erofs` tells a part only."""
        numbers = re.search(r"NID: (\d+) .*Inode size: (\d+) .*Uid: (\d+) +Gid: (\d+) ", self.about(path), re.DOTALL)
        assert numbers
        nid, size, uid, gid = map(int, numbers.groups())
        with self.path.open("rb") as file:
            file.seek(nid * 32 + 4)
            return size, int.from_bytes(file.read(2), "little"), uid, gid


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="surrogateescape", check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _comparable(entry: Entry) -> Entry:
    """Without what `fsck.erofs` cannot extract: as root setuid and setgid of a file, else all modes and owners."""
    if not AS_ROOT:
        return Entry(entry.type, entry.content)
    return entry._replace(mode=entry.mode & ~0o6000) if entry.type is FileType.FILE else entry


def _found(path: str) -> Entry:
    status = os.lstat(path)
    owner = (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return _comparable(Entry(FileType.LINK, os.fsencode(os.readlink(path)), 0o777, owner))
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return _comparable(Entry(FileType.DIRECTORY, b"", mode, owner))
    return _comparable(Entry(FileType.FILE, Path(path).read_bytes(), mode, owner))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path / "image")


NUMBERS = random.Random(1)
SYSTEM = {
    "/bin": link("usr/bin"),
    "/long": link("x" * 4000),
    "/longest": link("y" * 4095),
    "/usr": directory(),
    "/usr/bin": directory(0o2755, (12, 13)),
    "/usr/bin/sh": file(b"shell", 0o4755),
    "/usr/bin/sudo": file(b"sudo" * 5000, 0o6711, (70_000, 1)),
    "/usr/group": file(b"group", 0o640, (1, 70_000)),
    "/usr/nobody": file(b"none", 0o000, (65_535, 65_535)),
    "/usr/sizes": directory(0o1777),
    **{f"/usr/sizes/{size}": file(NUMBERS.randbytes(size)) for size in SIZES},
    "/usr/caf\udce9": file(b"latin"),
    "/usr/" + "n" * 255: file(b"long name"),
}


def test_a_system_passes_the_check_and_can_be_read(image: Image) -> None:
    image.write(SYSTEM)
    image.check()
    image.holds(SYSTEM)


def test_an_inode_has_owner_and_mode_with_setuid_and_is_large_only_if_it_has_to_be(image: Image) -> None:
    image.write(SYSTEM)
    found = {name: image.inode(f"/usr/{name}") for name in ("bin", "bin/sh", "bin/sudo", "group", "nobody")}
    assert found == {
        "bin": (32, 0o042755, 12, 13),
        "bin/sh": (32, 0o104755, 0, 0),
        "bin/sudo": (64, 0o106711, 70_000, 1),
        "group": (64, 0o100640, 1, 70_000),
        "nobody": (32, 0o100000, 65_535, 65_535),
    }


def test_the_super_block_is_what_the_format_says(image: Image) -> None:
    image.write({"/file": file(b"content")}, label="an os")
    data = image.path.read_bytes()

    assert data[:1024] == bytes(1024)
    assert data[1024:4096] == (
        bytes.fromhex("e2e1f5e0 b013fbb9 03000000")  # magic, checksum, SB_CHKSUM and MTIME
        + bytes.fromhex("0c 00 8000 0200000000000000")  # blocks of 2**12, no slots, the root at 128 * 32, 2 inodes
        + bytes.fromhex("00f1536500000000 00000000")  # 1,700,000,000 seconds
        + bytes.fromhex("03000000 00000000 00000000")  # 3 blocks, where nids and attributes begin
        + ID.bytes
        + b"an os".ljust(16, b"\0")
        + bytes(3072 - 80)  # no feature that a reader has to know
    )


def test_dump_erofs_reads_the_super_block(image: Image) -> None:
    size = image.write(SYSTEM)
    said = run("dump.erofs", "-s", image.path)

    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in said.splitlines())}
    assert facts["Filesystem blocks"] == str(size // 4096)
    assert facts["Filesystem inode count"] == str(len(SYSTEM) + 1)
    assert facts["Filesystem features"] == "sb_csum mtime"
    assert facts["Filesystem UUID"] == str(ID)


def test_the_file_system_is_found_by_uuid_and_label(image: Image) -> None:
    image.write(SYSTEM, label="fifteen letters")
    found = dict(line.split("=") for line in run("blkid", "--probe", "--output", "export", image.path).splitlines())
    assert (found["TYPE"], found["UUID"], found["LABEL"]) == ("erofs", str(ID), "fifteen\\ letters")


def test_the_required_size_is_that_of_the_file(image: Image) -> None:
    size = image.write(SYSTEM)
    assert size == erofs.required(nodes_of(SYSTEM)) == image.path.stat().st_size
    assert size % 4096 == 0


def test_a_file_system_without_anything_is_sound(image: Image) -> None:
    assert image.write({}) == 2 * 4096
    image.check()
    image.holds({})
    assert "Uid: 0   Gid: 0  Access: 0755/rwxr-xr-x" in image.about("/")


def test_the_same_nodes_give_the_same_bytes_at_any_place(image: Image, tmp_path: Path) -> None:
    size = image.write(SYSTEM)
    first = image.path.read_bytes()
    image.path = tmp_path / "other"
    assert image.write(SYSTEM, offset=3 * MIB) == size
    assert image.path.read_bytes() == bytes(3 * MIB) + first


def test_what_is_before_and_behind_the_file_system_stays(image: Image) -> None:
    image.path.write_bytes(b"before" + bytes(MIB) + b"behind")
    with image.path.open("r+b") as target:
        size = erofs.write(target, 4096, nodes_of({"/a": directory()}), lambda _: b"", uuid=ID, label="", time=0)
    data = image.path.read_bytes()
    assert size < MIB - 4096
    assert data.startswith(b"before\0")
    assert data.endswith(b"\0behind")
    assert len(data) == MIB + 12


def test_content_is_asked_for_once_and_in_the_order_of_nodes(image: Image) -> None:
    image.write({"/a": directory(), "/a/z": file(b"1"), "/a!": file(b"2"), "/b": file(b"1"), "/c": file(b"3")})
    assert image.asked == ["/a!", "/a/z", "/c"]


def test_files_of_the_same_hash_are_one_inode_with_several_names(image: Image) -> None:
    tree = {"/a": file(b"same" * 5000), "/b": directory(), "/b/c": file(b"same" * 5000), "/other": file(b"x")}
    image.write(tree)
    image.check()
    image.holds(tree)
    numbers = [re.findall(r"NID: (\d+)   Links: (\d+)", image.about(path))[0] for path in ("/a", "/b/c", "/other")]
    assert numbers[0] == numbers[1] != numbers[2]
    assert [links for _, links in numbers] == ["2", "2", "1"]


def test_empty_files_are_inodes_of_their_own(image: Image) -> None:
    image.write({"/a": file(), "/b": file()})
    image.check()
    assert ["Links: 1" in image.about(path) for path in ("/a", "/b")] == [True, True]


def test_content_can_be_mapped_because_it_is_not_beside_its_inode(image: Image) -> None:
    image.write(SYSTEM)
    plain = [path for path in SYSTEM if "/sizes/" in path]
    assert [path for path in plain if "Layout: 0 " not in image.about(path)] == []
    data = image.path.read_bytes()
    starts = [data.index(SYSTEM[path].content) for path in plain if SYSTEM[path].content[1:]]
    assert [start % 4096 for start in starts] == [0] * len(starts)


def test_zeros_in_a_file_take_no_room(image: Image) -> None:
    content = b"begin" + bytes(10 * MIB) + b"middle" + bytes(10 * MIB)
    image.write({"/holes": file(content)})
    assert image.path.stat().st_size > 20 * MIB
    assert image.path.stat().st_blocks * 512 < MIB
    image.holds({"/holes": file(content)})


def test_a_directory_may_have_ten_thousand_names(image: Image) -> None:
    tree = {"/d": directory(), **{f"/d/{number}-{'n' * (number % 200)}": file() for number in range(10_000)}}
    image.write(tree)
    image.check()
    image.holds(tree)


@pytest.mark.parametrize("last", range(20, 40))
def test_a_directory_may_be_just_as_large_as_a_block(image: Image, last: int) -> None:
    names = [f"{number:03}{'n' * 252}" for number in range(15)]
    tree = {"/d": directory(), **{f"/d/{name}": file() for name in (*names, "z" * last)}}
    image.write(tree)
    image.check()
    image.holds(tree)


def test_a_file_may_have_more_names_than_a_small_inode_can_count(image: Image) -> None:
    image.write({f"/{number}": file(b"same") for number in range(66_000)})
    assert "Links: 66000" in image.about("/65999")
    image.check()


def test_a_file_may_be_larger_than_4_gib(image: Image) -> None:
    node = Node("/large", FileType.FILE, 0o644, 0, 0, (1 << 32) + 5, "", "hash")
    with image.path.open("w+b") as target:
        erofs.write(target, 0, [node], lambda node: bytes(node.size), uuid=ID, label="", time=TIME)
    assert "Size: 4294967301  On-disk size: 4294967301  regular file" in image.about("/large")
    assert "2023-11-14 22:13:20.000000000" in image.about("/large")
    image.check()


def test_a_file_that_is_too_large_is_refused_before_anything_is_read(image: Image) -> None:
    nodes = [Node(path, FileType.FILE, 0o644, 0, 0, 9 << 40, "", path) for path in ("/a", "/b")]
    assert erofs.required(nodes[:1]) == (9 << 40) + 8192
    with pytest.raises(BuildError, match="/b: an erofs file system cannot have a file of 9895604649984 bytes here"):
        erofs.required(nodes)


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(BuildError, match=r"/é+: an erofs file system cannot have a name of 256 bytes, 255 is the most"):
        erofs.required(nodes_of({"/" + "é" * 128: file()}))


def test_a_link_that_is_too_long_is_refused() -> None:
    with pytest.raises(BuildError, match="/a: an erofs file system cannot have a link to 4096 bytes, 4095 is the most"):
        erofs.required(nodes_of({"/a": link("x" * 4096)}))


def test_content_of_another_size_than_announced_is_refused_and_leaves_no_file_system(image: Image) -> None:
    nodes = nodes_of({"/a": file(b"abcd")})
    with (
        image.path.open("w+b") as target,
        pytest.raises(BuildError, match="/a: the content has 3 bytes, not the 4 that were announced"),
    ):
        erofs.write(target, 0, nodes, lambda _: b"abc", uuid=ID, label="", time=TIME)
    assert image.path.read_bytes()[:4096].strip(b"\0") == b""


@pytest.mark.parametrize(
    "paths", [["/a/b"], ["a"], ["/a", "/a"], ["/"], ["/a/"], ["/.."], ["/a\0"]], ids=lambda paths: repr(paths[-1])
)
def test_nodes_that_make_no_file_system_are_refused(paths: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(paths[-1]))):
        erofs.required([Node(path, FileType.FILE, 0o644, 0, 0, 0, "", "hash") for path in paths])


def test_a_label_that_is_too_long_and_a_time_before_1970_are_refused(image: Image) -> None:
    with pytest.raises(ValueError, match="label"):
        image.write({}, label="é" * 8)
    with pytest.raises(ValueError, match="time"):
        image.write({}, time=-1)


NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: os.fsdecode(name.translate(None, b"/\0")))
    .filter(lambda name: name not in ("", ".", ".."))
) | st.sampled_from(["n" * 255, "!", "-", "...", "n" * 254])
OWNERS = st.integers(0, 2**32 - 2)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Entry]:
    """Any tree: deep, wide, sizes at the limits of blocks."""
    above = [""]
    tree: dict[str, Entry] = {}
    for _ in range(draw(st.integers(0, 60))):
        path = f"{draw(st.sampled_from(above))}/{draw(NAMES)}"
        if path in tree or len(os.fsencode(path)) > 2000:
            continue
        owner = (draw(OWNERS), draw(OWNERS))
        match draw(st.sampled_from(["directory", "file", "file", "link"])):
            case "link":
                tree[path] = link(draw(NAMES) * draw(st.sampled_from([1, 16])))._replace(owner=owner)
            case "file":
                content = draw(st.binary(min_size=1, max_size=3)) * draw(st.sampled_from(SIZES))
                tree[path] = file(content[: draw(st.sampled_from(SIZES))], draw(st.integers(0, 0o7777)), owner)
            case _:
                tree[path] = directory(draw(st.integers(0, 0o7777)), owner)
                above.append(path)
    return tree


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees())
def test_any_tree_passes_the_check_and_can_be_read(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    image = Image(tmp_path_factory.mktemp("any") / "image")
    assert image.write(tree) == erofs.required(nodes_of(tree))
    image.check()
    image.holds(tree)
