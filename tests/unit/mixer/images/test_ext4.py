from __future__ import annotations

import os
import random
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError
from mixer.images import ext4
from mixer.images.tree import Node
from swupd.formats.manifest import FileType

MIB = 1 << 20
ID = UUID("6e1a2f9c-0d8b-4c53-9a51-2b7f6f0d9a11")
TIME = 1_700_000_000
NUMBERS = random.Random(1)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts the file system: needs root")


class Root:
    """Nodes with their content."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.contents: dict[str, bytes] = {}
        self.read: list[str] = []

    def file(self, path: str, content: bytes = b"", mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        # The hash of a file tells its mode, owner and content.
        file_hash = f"{mode:o} {uid} {gid} {content.hex() if len(content) < 99 else hash(content)}"
        self.nodes.append(Node(path, FileType.FILE, mode, uid, gid, len(content), "", file_hash))
        self.contents[path] = content

    def directory(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        self.nodes.append(Node(path, FileType.DIRECTORY, mode, uid, gid, 0, "", f"directory {mode:o} {uid} {gid}"))

    def link(self, path: str, target: str, uid: int = 0) -> None:
        self.nodes.append(Node(path, FileType.LINK, 0o777, uid, 0, 0, target, f"link {target}"))

    def content(self, node: Node) -> bytes:
        self.read.append(node.path)
        return self.contents[node.path]

    def write(self, image: Path, *, offset: int = 0, time: int = TIME) -> int:
        if not image.exists():
            image.touch()
        return ext4.write(image, offset, self.nodes, self.content, uuid=ID, label="guest", time=time)


def system() -> Root:
    root = Root()
    root.link("/bin", "usr/bin")
    root.link("/long", "x" * 60)
    root.link("/longer", "y" * 4000)
    root.link("/owned", "target", uid=1234)
    root.link("/short", "z" * 59)
    root.directory("/tmp", 0o1777)
    root.directory("/usr")
    root.directory("/usr/bin", 0o2770, gid=50)
    root.file("/usr/bin/ping", b"ping", 0o4755)
    root.file("/usr/empty", b"", 0o600)
    root.file("/usr/empty-too", b"", 0o600)
    root.file("/usr/large", NUMBERS.randbytes(3 * MIB + 1), 0o000)
    root.file("/usr/none", b"x", 0o644, 4_000_000_000, 70_000)
    root.file("/usr/same", b"ping", 0o4755)
    root.file("/usr/with holes", b"a" + bytes(MIB) + b"b" + bytes(MIB))
    return root


def check(image: Path) -> None:
    """The program of ext4 itself finds no fault."""
    done = subprocess.run(
        ["/usr/sbin/e2fsck", "-fn", image],
        capture_output=True,
        text=True,
        check=False,
        env={"E2FSCK_CONFIG": "/dev/null", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def debugfs(image: Path, command: str) -> str:
    argv = ["/usr/sbin/debugfs", "-R", command, str(image)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def free(image: Path) -> int:
    argv = ["/usr/sbin/dumpe2fs", "-h", str(image)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[-1]) for line in said.splitlines() if line.startswith("Free blocks:"))


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(["mount", "-o", "loop,ro", image, place], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def holds(image: Path, root: Root, time: int = TIME) -> None:
    """The kernel finds these nodes in the file system, as they are, and nothing else."""
    with mounted(image) as top:
        found = sorted(os.fsencode(path)[len(os.fsencode(top)) :] for path in _walk(top))
        assert found == sorted(os.fsencode(node.path) for node in root.nodes)
        for node in root.nodes:
            _compare(f"{top}{node.path}", node, root.contents.get(node.path, b""), time)
        status = top.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
        assert status.st_mtime == time


def _walk(top: Path) -> Iterator[str]:
    for above, directories, files in os.walk(top):
        yield from (os.path.join(above, name) for name in (*directories, *files))


def _compare(path: str, node: Node, content: bytes, time: int) -> None:
    status = os.lstat(path)
    kinds = {FileType.FILE: stat.S_IFREG, FileType.DIRECTORY: stat.S_IFDIR, FileType.LINK: stat.S_IFLNK}
    assert stat.S_IFMT(status.st_mode) == kinds[node.type], path
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (node.mode, node.uid, node.gid), path
    assert {status.st_mtime, status.st_ctime} == {time}, path
    if node.type is FileType.LINK:
        assert os.readlink(path) == node.target
    elif node.type is FileType.FILE:
        assert Path(path).read_bytes() == content, path


@needs_root
def test_the_kernel_finds_every_node_as_it_is(tmp_path: Path) -> None:
    root = system()

    root.write(tmp_path / "image")

    check(tmp_path / "image")
    holds(tmp_path / "image", root)


def test_a_system_passes_the_check_without_root(tmp_path: Path) -> None:
    root = system()

    size = root.write(tmp_path / "image")

    check(tmp_path / "image")
    assert (tmp_path / "image").stat().st_size == size == ext4.required(root.nodes)
    listed = [line.split("/")[2:6] for line in debugfs(tmp_path / "image", "ls -p /usr").splitlines() if line]
    assert ["100000", "0", "0", "large"] in listed
    assert ["042770", "0", "50", "bin"] in listed
    assert not [entry for entry in listed if entry[3] == "lost+found"]


def test_the_same_nodes_give_the_same_bytes_elsewhere_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_of_one = system()
    system_of_one.write(tmp_path / "first")
    for name, value in (("TZ", "Asia/Tokyo"), ("E2FSPROGS_FAKE_TIME", "1"), ("MKE2FS_CONFIG", "/nowhere")):
        monkeypatch.setenv(name, value)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    # Later by the clock of the programs, in the next second.
    second = int((tmp_path / "first").stat().st_mtime)
    while int((tmp_path / "below").stat().st_mtime) == second:
        (tmp_path / "below/clock").touch()
        (tmp_path / "below/clock").unlink()

    system_of_one.write(Path("second"))

    assert Path("second").read_bytes() == (tmp_path / "first").read_bytes()
    assert os.listdir() == ["second"]


def test_nothing_outside_its_place_is_touched(tmp_path: Path) -> None:
    root = system()
    size = root.write(tmp_path / "alone")
    (tmp_path / "image").write_bytes(b"a" * 3 * MIB + bytes(size) + b"z" * MIB)

    root.write(tmp_path / "image", offset=3 * MIB)

    data = (tmp_path / "image").read_bytes()
    assert data == b"a" * 3 * MIB + (tmp_path / "alone").read_bytes() + b"z" * MIB


@needs_root
@pytest.mark.parametrize("time", [0, 1, 2**31 - 1, 2**31, 3_000_000_000, 2**32, ext4.LAST_TIME])
def test_all_times_are_the_one_given(tmp_path: Path, time: int) -> None:
    root = system()

    root.write(tmp_path / "image", time=time)

    check(tmp_path / "image")
    holds(tmp_path / "image", root, time)


@needs_root
def test_a_time_that_ext4_does_not_know_is_moved_to_the_nearest(tmp_path: Path) -> None:
    root = system()

    root.write(tmp_path / "image", time=253_402_300_799)

    holds(tmp_path / "image", root, ext4.LAST_TIME)


def test_files_of_one_hash_are_one_inode_and_read_once(tmp_path: Path) -> None:
    root = Root()
    root.directory("/a")
    for number in range(200):
        root.file(f"/a/{number:0100}", b"the same")
    root.file("/empty")
    root.file("/empty too")

    root.write(tmp_path / "image")

    check(tmp_path / "image")
    listed = [line.split("/") for line in debugfs(tmp_path / "image", "ls -p /a").splitlines() if line]
    assert len(listed) == 202
    assert len({fields[1] for fields in listed if fields[5] not in (".", "..")}) == 1
    assert root.read == [f"/a/{0:0100}", "/empty", "/empty too"]


def test_an_inode_has_no_more_names_than_ext4_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4, "MAX_LINKS", 3)
    root = Root()
    for number in range(7):
        root.file(f"/{number}", b"the same")

    root.write(tmp_path / "image")

    check(tmp_path / "image")
    assert root.read == ["/0", "/3", "/6"]


NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & set(b"/\0\n\r") and name not in (b".", b"..")
)
SPECIAL_NAMES = [b"<2>", b'"', b'""', b" ", b"#", b"-R", b"lost+found", b"\\", b"'", b"a?offset=1"]


@needs_root
@settings(max_examples=10, deadline=None)
@given(
    names=st.lists(NAMES | st.sampled_from(SPECIAL_NAMES), unique=True, max_size=40),
    targets=st.lists(st.binary(min_size=1, max_size=300).filter(lambda target: not set(target) & set(b"\0\n\r"))),
)
def test_names_and_targets_of_any_bytes_are_kept(names: list[bytes], targets: list[bytes]) -> None:
    root = Root()
    root.directory("/links of 'it' \"all\"")
    for number, target in enumerate(targets):
        root.link(f"/links of 'it' \"all\"/{number}", os.fsdecode(target))
    for number, name in enumerate(names):
        path = "/" + os.fsdecode(name)
        if number % 3:
            root.file(path, name * (number % 5), 0o600 + number)
        else:
            root.directory(path)
            root.file(f"{path}/{os.fsdecode(name)}", name)
    with tempfile.TemporaryDirectory() as place:
        image = Path(place) / "image"

        root.write(image)

        check(image)
        holds(image, root)


def test_a_directory_with_5000_files(tmp_path: Path) -> None:
    root = Root()
    root.directory("/many")
    for number in range(5000):
        root.file(f"/many/{number} of them", b"%d" % number)

    root.write(tmp_path / "image")

    check(tmp_path / "image")
    assert debugfs(tmp_path / "image", "ls -p /many").count(" of them") == 5000
    assert debugfs(tmp_path / "image", 'cat "/many/4711 of them"') == "4711"


SIZES = st.lists(st.integers(0, 20) | st.integers(0, 200_000) | st.just(4096) | st.just(3 * MIB), max_size=60)


@settings(max_examples=10, deadline=None)
@given(sizes=SIZES, links=st.lists(st.integers(1, 4000), max_size=60), directories=st.integers(0, 400))
def test_what_is_required_is_enough_and_hardly_more(sizes: list[int], links: list[int], directories: int) -> None:
    root = Root()
    for number in range(directories):
        root.directory(f"/{number:0>200}")
    for number, size in enumerate(links):
        root.link(f"/link {number}", "t" * size)
    for number, size in enumerate(sizes):
        root.file(f"/file {number}", b"%03d" % number + b"x" * size)
    with tempfile.TemporaryDirectory() as place:
        image = Path(place) / "image"

        assert root.write(image) == ext4.required(root.nodes)

        check(image)
        assert free(image) < 60


def test_more_than_a_group_of_blocks_and_of_inodes(tmp_path: Path) -> None:
    root = Root()
    for number in range(30_000):
        root.nodes.append(Node(f"/{number // 400:03}/{number}", FileType.LINK, 0o777, 0, 0, 0, "t", ""))
    root.nodes += [Node(f"/{number:03}", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "") for number in range(75)]
    root.nodes.sort(key=lambda node: node.path)
    root.file("/large", b"x" * (130 * MIB))

    root.write(tmp_path / "image")

    check(tmp_path / "image")


def test_a_file_of_many_pieces_and_holes(tmp_path: Path) -> None:
    root = Root()
    root.file("/pieces", (b"x" * 4096 + bytes(4096)) * 3000)

    root.write(tmp_path / "image")

    check(tmp_path / "image")
    argv = ["/usr/sbin/debugfs", "-R", "cat /pieces", str(tmp_path / "image")]
    found = subprocess.run(argv, capture_output=True, check=True).stdout
    assert found == root.contents["/pieces"]


@pytest.mark.parametrize(
    ("path", "target", "told"),
    [
        ("/line\nrm /usr", "t", r"debugfs cannot be told of '/line\\nrm /usr': path and target of a link are one line"),
        ("/link", "a\rb", "debugfs cannot be told of '/link': "),
        ("/link", "t" * 4089, "debugfs cannot be told of '/link': .* with at most 4088 bytes"),
        ("/link", '"' * 2045, "debugfs cannot be told of '/link': "),
        ("/" + "n" * 256, "t", "the name of /n{256} has more than 255 bytes: too long for ext4"),
    ],
)
def test_what_cannot_be_expressed_is_one_line_before_anything_is_written(
    tmp_path: Path, path: str, target: str, told: str
) -> None:
    root = Root()
    root.link(path, target)

    with pytest.raises(BuildError, match=told):
        root.write(tmp_path / "image")

    assert (tmp_path / "image").read_bytes() == b""


def test_a_directory_of_too_many_directories_is_one_line() -> None:
    nodes = [Node("/d", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "")]
    nodes += [Node(f"/d/{number}", FileType.DIRECTORY, 0o755, 0, 0, 0, "", "") for number in range(64_999)]

    with pytest.raises(BuildError, match="/d has 64999 subdirectories: too many for ext4"):
        ext4.required(nodes)


def test_a_file_too_large_for_the_format_is_one_line() -> None:
    with pytest.raises(BuildError, match=r"16\d\d\d GiB are too large for ext4"):
        ext4.required([Node("/huge", FileType.FILE, 0o644, 0, 0, 1 << 44, "", "")])


def test_content_of_another_size_is_one_line(tmp_path: Path) -> None:
    root = system()
    root.contents["/usr/large"] += b"more"

    with pytest.raises(BuildError, match=r"^/usr/large has 3145733 bytes, not 3145729$"):
        root.write(tmp_path / "image")


def test_an_error_that_debugfs_goes_on_after_is_one_line(tmp_path: Path) -> None:
    root = system()
    root.nodes.append(root.nodes[0])

    with pytest.raises(BuildError, match=r"^debugfs cannot fill the file system: .*already exists"):
        root.write(tmp_path / "image")


def test_a_name_that_debugfs_would_split_is_refused_and_no_other_image_touched(tmp_path: Path) -> None:
    (tmp_path / "image").touch()

    with pytest.raises(BuildError, match=r"debugfs cannot write into .*/image\?2: it takes what comes before \? for"):
        system().write(tmp_path / "image?2")

    assert (tmp_path / "image").read_bytes() == b""


def test_a_missing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4, "ENVIRONMENT", {"PATH": str(tmp_path)})

    with pytest.raises(BuildError, match=r"^an ext4 file system is made by mke2fs, which is missing$") as raised:
        system().write(tmp_path / "image")

    assert raised.value.hint == "install e2fsprogs"


@needs_root
def test_a_full_disk_is_found_before_any_program_runs(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(OSError, match="No space left on device"):
            system().write(tmp_path / "image")
        assert not (tmp_path / "image").read_bytes().strip(b"\0")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_label_that_is_too_long_and_an_offset_within_a_block_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label"):
        ext4.write(tmp_path / "image", 0, [], system().content, uuid=ID, label="x" * 17, time=TIME)
    with pytest.raises(ValueError, match="offset"):
        ext4.write(tmp_path / "image", 512, [], system().content, uuid=ID, label="", time=TIME)
