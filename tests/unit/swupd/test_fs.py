"""Changes below directory descriptors."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swupd.errors import UnsafePathError
from swupd.fs import Directory, components, make_directories, replace_file


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path) as directory:
        yield directory


def test_descending_walks_real_directories(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/file").write_text("x")
    with top.descend("/usr//lib/") as below:
        assert below.names() == ["file"]


def test_a_link_on_the_way_is_refused(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UnsafePathError, match="link is a symbolic link"):
        top.descend("link")


def test_a_file_on_the_way_is_an_ordinary_error(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        top.descend("file")


@pytest.mark.parametrize("path", ["..", "a/../b", "/../etc"])
def test_dots_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        components(path)


def test_a_file_is_created_with_exact_mode_whatever_the_umask(top: Directory, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        top.write_file("f", [b"a", b"b"], mode=0o4755)
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_bytes() == b"ab"
    assert stat.S_IMODE((tmp_path / "f").lstat().st_mode) == 0o4755


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
def test_owners_are_set_and_do_not_clear_setuid(top: Directory, tmp_path: Path) -> None:
    top.write_file("f", [], mode=0o6755, owner=(12, 34))
    top.make_link("l", "f", owner=(12, 34))
    top.make_directory("d", mode=0o2755, owner=(12, 34))
    for name in "fld":
        assert (tmp_path / name).lstat().st_uid == 12
    assert stat.S_IMODE((tmp_path / "f").lstat().st_mode) == 0o6755
    assert stat.S_IMODE((tmp_path / "d").lstat().st_mode) == 0o2755


def test_an_existing_name_is_never_written_through(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "f").symlink_to("victim")
    with pytest.raises(FileExistsError):
        top.write_file("f", [b"evil"])
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_failed_write_leaves_nothing(top: Directory) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        top.write_file("f", broken())
    assert top.names() == []


def test_only_regular_files_are_opened(top: Directory, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link"):
        with pytest.raises(UnsafePathError):
            top.open_file(name)


def test_removing_a_tree_does_not_follow_links(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").touch()
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/link").symlink_to("../../keep")
    top.remove_tree("tree")
    top.remove_tree("not there")
    assert top.names() == ["keep"]
    assert (tmp_path / "keep/file").exists()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "latest"
    replace_file(target, b"10")
    replace_file(target, b"20")
    assert target.read_bytes() == b"20"
    assert [p.name for p in tmp_path.iterdir()] == ["latest"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
def test_a_copy_has_all_that_belongs_to_a_file(top: Directory, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"content")
    os.chown(old, 12, 34)
    old.chmod(0o6755)
    os.setxattr(old, "user.mark", b"x")
    os.utime(old, ns=(5, 123456789))
    top.copy_file(top, "old", "copy")
    copy = tmp_path / "copy"
    status = copy.stat()
    assert copy.read_bytes() == b"content"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o6755)
    assert (status.st_mtime_ns, os.getxattr(copy, "user.mark")) == (123456789, b"x")


def test_extended_attributes_of_a_directory_are_set_and_removed(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "user.old", b"1")
    top.set_extended_attributes("d", {"user.new": b"2"}, remove=["user.old"])
    assert os.listxattr(tmp_path / "d") == ["user.new"]
    (tmp_path / "link").symlink_to("d")
    with pytest.raises(OSError, match="link"):
        top.set_extended_attributes("link", {"user.x": b""})


@pytest.mark.parametrize("durable", [True, False])
def test_a_durable_copy_is_on_disk_when_it_returns(
    top: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    (tmp_path / "old").write_bytes(b"content")
    top.copy_file(top, "old", "copy", durable=durable)
    assert synced == [str(tmp_path / "copy")] * durable


def test_nothing_is_left_of_a_copy_that_fails(top: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"content")

    def refuse(*args: object, **options: object) -> None:
        raise OSError("no times here")

    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(OSError, match="no times"):
        top.copy_file(top, "old", "copy")
    assert top.names() == ["old"]


def test_two_objects_exchange_their_names(top: Directory, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    top.exchange("a", "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        top.exchange("a", "missing")


def test_a_durable_file_and_its_name_are_waited_for(top: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2]))
    top.write_file("f", [b"x"], durable=True)
    top.sync_names()
    assert synced == ["f", os.path.basename(top.path)]


def test_directories_are_made_with_all_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        make_directories(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


@pytest.fixture(scope="session")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two subvolumes of a btrfs, `one` and `two`, each at a mount point of its own."""
    directory = tmp_path_factory.mktemp("btrfs")
    image, top = directory / "image", directory / "top"
    for name in ("top", "one", "two"):
        (directory / name).mkdir()
    with image.open("wb") as file:
        file.truncate(120 << 20)
    try:
        _call("mkfs.btrfs", "-q", "-m", "single", str(image))
        _call("mount", "-o", "loop", str(image), str(top))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no btrfs can be mounted here: {error}")
    try:
        for name in ("one", "two"):
            _call("btrfs", "subvolume", "create", str(top / name))
            _call("mount", "--bind", str(top / name), str(directory / name))
        yield directory
    finally:
        for name in ("one", "two", "top"):
            _call("umount", str(directory / name))


def test_a_copy_in_another_subvolume_shares_its_content_on_disk(btrfs: Path) -> None:
    content = os.urandom(1 << 20) + b"and an end that fills no block"
    (btrfs / "one/old").write_bytes(content)
    with Directory.open(btrfs / "one") as one, Directory.open(btrfs / "two") as two:
        with pytest.raises(OSError, match="cross-device"):
            two.hard_link(one, "old", "link")
        two.copy_file(one, "old", "copy")
        with one.open_file("old") as source:
            two.copy_content(source, "content", mode=0o640, owner=(os.getuid(), os.getgid()), mtime=5)
    for name in ("copy", "content"):
        assert (btrfs / "two" / name).read_bytes() == content
        assert _shares_all_extents(btrfs / "two" / name)
    assert stat.S_IMODE((btrfs / "two/content").stat().st_mode) == 0o640
    # They are two files: what happens to one does not happen to the other.
    (btrfs / "two/copy").write_bytes(b"changed")
    assert (btrfs / "one/old").read_bytes() == content


def test_small_and_empty_files_are_copied_as_well(btrfs: Path) -> None:
    with Directory.open(btrfs / "one") as one, Directory.open(btrfs / "two") as two:
        for content in (b"", b"x", b"x" * 5000):
            name = f"small{len(content)}"
            one.write_file(name, [content])
            two.copy_file(one, name, name)
            assert (btrfs / "two" / name).read_bytes() == content


def test_a_file_of_another_file_system_is_copied(btrfs: Path, top: Directory, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "old").write_bytes(content)
    with Directory.open(btrfs / "one") as one:
        one.copy_file(top, "old", "from elsewhere")
    assert (btrfs / "one/from elsewhere").read_bytes() == content


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_the_kernel_cannot_copy_the_bytes_are(
    top: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _fail_copying(monkeypatch, code)
    (tmp_path / "old").write_bytes(b"content" * 1000)
    top.copy_file(top, "old", "copy")
    assert (tmp_path / "copy").read_bytes() == b"content" * 1000


def test_a_full_disk_is_no_reason_to_try_otherwise(
    top: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_copying(monkeypatch, errno.ENOSPC)
    (tmp_path / "old").write_bytes(b"content")
    with pytest.raises(OSError, match="No space"):
        top.copy_file(top, "old", "copy")
    assert top.names() == ["old"]


def _fail_copying(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)


def _shares_all_extents(path: Path) -> bool:
    _call("sync", "--file-system", str(path))
    lines = re.findall(r"^ +\d+:.*$", _call("filefrag", "-v", str(path)), re.MULTILINE)
    return bool(lines) and all("shared" in line for line in lines)


def _call(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
