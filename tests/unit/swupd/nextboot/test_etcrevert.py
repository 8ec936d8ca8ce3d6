"""Putting paths of a real overlay back, at once and with the next boot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd.errors import UsageError
from swupd.fs import Directory
from swupd.nextboot.etcrevert import TEMPORARY, Reverted, relative, revert, settle_queue
from tests.unit.swupd.nextboot.overlayroot import OverlayRoot, Silent, overlay_root

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_sync")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayRoot]:
    with overlay_root(tmp_path) as root:
        yield root


def put_back(machine: OverlayRoot, *paths: str, machine_made: bool = False) -> Reverted:
    return revert(machine.layers, paths, Silent(), machine_made=machine_made)


def edit(path: Path) -> None:
    path.write_text("mine\n")


def replace_directory(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()
    (path / "mine").write_text("mine")


def file_to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("mine")


def directory_to_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("mine")


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "edited": ("hosts", edit),
    "edited below": ("d/sub/z", edit),
    "mode": ("hosts", lambda path: path.chmod(0o600)),
    "mode of a directory": ("private", lambda path: path.chmod(0o777)),
    "owner of a directory": ("d", lambda path: os.chown(path, 12, 12)),
    "attribute": ("hosts", lambda path: os.setxattr(path, "trusted.x", b"1")),
    "attribute of a directory": ("d", lambda path: os.setxattr(path, "trusted.x", b"1")),
    "deleted": ("hosts", Path.unlink),
    "link deleted": ("link", Path.unlink),
    "directory deleted": ("d", shutil.rmtree),
    "directory replaced": ("d", replace_directory),
    "file to directory": ("networks", file_to_directory),
    "directory to file": ("d", directory_to_file),
    "link to file": ("link", lambda path: (path.unlink(), edit(path))),
    "file to link": ("hosts", lambda path: (path.unlink(), path.symlink_to("/nowhere"))),
    "file added": ("new", edit),
    "directory added": ("new", lambda path: (path.mkdir(), edit(path / "inside"))),
    "fifo added": ("new", os.mkfifo),
    "fifo for a file": ("hosts", lambda path: (path.unlink(), os.mkfifo(path))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_revert_is_right_at_once_and_after_the_next_boot(machine: OverlayRoot, change: str) -> None:
    path, make = CHANGES[change]
    make(machine.etc / path)
    assert path in machine.changes()
    put_back(machine, path)
    assert machine.is_factory()
    assert set(machine.changes().values()) <= {"same+"}
    machine.boot()
    assert machine.is_factory()
    assert machine.changes() == {}
    assert not os.path.lexists(machine.upper / path)


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_reverted_follows_the_factory_of_the_next_version(machine: OverlayRoot, change: str) -> None:
    path, make = CHANGES[change]
    make(machine.etc / path)
    put_back(machine, path)
    machine.shut_down()
    (machine.factory / "hosts").write_text("new hosts\n")
    (machine.factory / "d/new").write_text("new file\n")
    (machine.factory / "private").chmod(0o700)
    machine.boot()
    assert machine.is_factory()


def test_a_user_s_other_changes_stay(machine: OverlayRoot) -> None:
    edit(machine.etc / "d/x")
    edit(machine.etc / "d/mine")
    edit(machine.etc / "d/y")
    result = put_back(machine, "d/x")
    assert (result.restored, result.removed) == (["d/x"], [])
    machine.boot()
    assert machine.changes() == {"d/mine": "added", "d/y": "changed"}


def test_a_directory_that_holds_nothing_of_the_user_s_any_more_is_not_kept(machine: OverlayRoot) -> None:
    edit(machine.etc / "d/sub/z")
    put_back(machine, "d/sub/z")
    assert machine.queue == ["d/sub/z", "d/sub", "d"]
    machine.boot()
    assert os.listdir(machine.upper) == []


def test_a_path_that_does_not_differ_is_left(machine: OverlayRoot) -> None:
    result = put_back(machine, "hosts", "d")
    assert result.unchanged == ["hosts", "d"]
    assert (result.restored, machine.queue) == ([], [])


def test_a_path_that_is_nowhere_does_not_keep_others_from_being_put_back(machine: OverlayRoot) -> None:
    edit(machine.etc / "hosts")
    result = put_back(machine, "nowhere", "hosts", "nowhere/either")
    assert (result.missing, result.restored) == (["nowhere", "nowhere/either"], ["hosts"])


def test_nothing_is_changed_if_one_of_the_paths_is_refused(machine: OverlayRoot) -> None:
    edit(machine.etc / "hosts")
    edit(machine.etc / "machine-id")
    with pytest.raises(UsageError):
        put_back(machine, "hosts", "machine-id")
    assert (machine.etc / "hosts").read_text() == "mine\n"


@pytest.mark.parametrize("change", ["directory deleted", "directory replaced", "directory to file"])
def test_what_differs_as_a_whole_is_reverted_as_a_whole(machine: OverlayRoot, change: str) -> None:
    CHANGES[change][1](machine.etc / "d")
    with pytest.raises(UsageError, match="/etc/d differs as a whole") as caught:
        put_back(machine, "d/x")
    assert caught.value.hint == "swupd etc revert /etc/d"


def test_a_part_of_an_added_directory_is_removed_by_itself(machine: OverlayRoot) -> None:
    (machine.etc / "new").mkdir()
    edit(machine.etc / "new/one")
    edit(machine.etc / "new/two")
    assert put_back(machine, "new/one").removed == ["new/one"]
    assert machine.changes() == {"new": "added"}
    assert os.listdir(machine.etc / "new") == ["two"]
    put_back(machine, "new", "new/two")
    assert machine.is_factory()


def test_what_was_changed_after_its_revert_is_not_lost_by_the_next_boot(machine: OverlayRoot) -> None:
    edit(machine.etc / "hosts")
    edit(machine.etc / "d/x")
    put_back(machine, "hosts", "d")
    (machine.etc / "hosts").write_text("better\n")
    (machine.etc / "d/mine").write_text("mine\n")
    report = Silent()
    assert settle_queue(machine.layers, report) == {"d/x"}
    assert report.lines == ["/etc/hosts was changed after its revert: it stays as it is"]
    machine.boot()
    assert machine.changes() == {"d/mine": "added", "hosts": "changed"}


def test_the_initrd_keeps_what_was_changed_after_its_revert_too(machine: OverlayRoot) -> None:
    edit(machine.etc / "hosts")
    edit(machine.etc / "networks")
    put_back(machine, "hosts", "networks")
    (machine.etc / "hosts").write_text("better\n")
    later = (machine.state / "etc/revert").stat().st_mtime + 2
    os.utime(machine.etc / "hosts", (later, later))
    machine.boot()
    assert machine.changes() == {"hosts": "changed"}
    assert (machine.etc / "hosts").read_text() == "better\n"


def test_a_queue_stays_though_the_factory_below_was_exchanged(machine: OverlayRoot) -> None:
    """As a live update does."""
    edit(machine.etc / "hosts")
    put_back(machine, "hosts")
    machine.shut_down()
    (machine.factory / "hosts").write_text("of the next version\n")
    queue = (machine.state / "etc/revert").read_bytes()
    (machine.state / "etc/revert").unlink()
    machine.boot()
    (machine.state / "etc/revert").write_bytes(queue)
    assert settle_queue(machine.layers, Silent()) == {"hosts"}


def test_what_the_machine_makes_for_itself_stays(machine: OverlayRoot) -> None:
    (machine.etc / "machine-id").write_text("0123\n")
    edit(machine.etc / "mine")
    put_back(machine, "")
    assert machine.changes() == {"machine-id": "added"}
    with pytest.raises(UsageError, match="/etc/machine-id is what the machine made for itself"):
        put_back(machine, "machine-id")
    put_back(machine, "machine-id", machine_made=True)
    assert machine.is_factory()


def test_a_directory_with_host_keys_is_not_thrown_away_as_a_whole(machine: OverlayRoot) -> None:
    (machine.etc / "ssh").mkdir()
    edit(machine.etc / "ssh/ssh_host_rsa_key")
    with pytest.raises(UsageError, match="/etc/ssh holds what the machine made for itself"):
        put_back(machine, "ssh")
    put_back(machine, "ssh", machine_made=True)
    assert machine.is_factory()


def test_a_whiteout_of_what_the_factory_has_no_more_goes_with_the_next_boot(machine: OverlayRoot) -> None:
    (machine.etc / "networks").unlink()
    machine.shut_down()
    (machine.factory / "networks").unlink()
    machine.boot()
    assert machine.changes() == {"networks": "stale"}
    put_back(machine, "networks")
    machine.boot()
    assert machine.changes() == {}
    assert os.listdir(machine.upper) == []


def test_what_is_mounted_is_never_replaced_or_emptied(machine: OverlayRoot, tmp_path: Path) -> None:
    (machine.etc / "new/deep").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    edit(outside / "precious")
    subprocess.run(["mount", "--bind", outside, machine.etc / "new/deep"], check=True)
    try:
        with pytest.raises(UsageError, match="/etc/new/deep is mounted"):
            put_back(machine, "new")
    finally:
        subprocess.run(["umount", machine.etc / "new/deep"], check=True)
    assert (outside / "precious").exists()


def test_no_link_is_followed(machine: OverlayRoot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    edit(outside / "x")
    shutil.rmtree(machine.etc / "d")
    (machine.etc / "d").symlink_to(outside)
    with pytest.raises(UsageError, match="differs as a whole"):
        put_back(machine, "d/x")
    put_back(machine, "d")
    assert machine.is_factory()
    assert (outside / "x").read_text() == "mine\n"


def test_a_name_with_a_line_break_cannot_be_queued(machine: OverlayRoot) -> None:
    machine.shut_down()
    (machine.factory / "two\nlines").write_text("x")
    machine.boot()
    edit(machine.etc / "two\nlines")
    with pytest.raises(UsageError, match="cannot be queued"):
        put_back(machine, "two\nlines")
    edit(machine.etc / "three\nlines")
    assert put_back(machine, "three\nlines").removed == ["three\nlines"]


def test_a_name_with_white_space_and_bytes_that_are_no_text_is_queued(machine: OverlayRoot) -> None:
    machine.shut_down()
    name = os.fsdecode(b" a\xff b\\n ")
    (machine.factory / name).write_text("x")
    machine.boot()
    edit(machine.etc / name)
    put_back(machine, name)
    machine.boot()
    assert machine.is_factory()
    assert os.listdir(machine.upper) == []


def test_an_interrupted_revert_is_finished_by_the_next(machine: OverlayRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hosts", "networks"):
        edit(machine.etc / name)
    rename = Directory.rename

    def once(self: Directory, old: str, new: str, *, to: Directory | None = None) -> None:
        if new == "networks":
            raise KeyboardInterrupt
        rename(self, old, new, to=to)

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "rename", once)
        with pytest.raises(KeyboardInterrupt):
            put_back(machine, "")
    assert machine.changes() == {"hosts": "same", "networks": "changed"}
    (machine.etc / TEMPORARY).write_text("left by a kill")
    put_back(machine, "")
    assert machine.is_factory()
    machine.boot()
    assert machine.is_factory()
    assert os.listdir(machine.upper) == []


@pytest.mark.parametrize("change", CHANGES)
def test_without_an_overlay_a_path_is_put_back_in_its_place(tmp_path: Path, change: str) -> None:
    path, make = CHANGES[change]
    with overlay_root(tmp_path, booted=False) as root:
        subprocess.run(["cp", "-a", f"{root.factory}/.", root.etc], check=True)
        make(root.etc / path)
        result = put_back(root, path)
        assert root.is_factory()
        assert result.restored or result.removed
        assert (result.queued, root.queue) == (frozenset(), [])


@pytest.mark.parametrize("text", ["etc/hosts", "/var/lib", "/etc/../var", "", "/", "/etcetera"])
def test_only_paths_in_etc_are_taken(text: str) -> None:
    with pytest.raises(UsageError):
        relative(text)


def test_a_path_has_one_spelling() -> None:
    assert relative("/etc//d/./x/") == "d/x"
    assert relative("/etc") == ""


NAMES = ["passwd", "hosts", "link", "d", "d/x", "d/sub", "d/sub/z", "private", "private/key", "new", "new/one", "d/new"]


def operate(etc: Path, operation: str, name: str) -> None:
    """One thing that a user does; what is impossible is not done."""
    path = etc / name
    try:
        if operation == "write":
            path.write_text(f"mine {name}")
        elif operation == "touch":
            os.utime(path)
        elif operation == "chmod":
            path.chmod(0o700)
        elif operation == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif operation == "mkdir":
            path.mkdir()
        elif operation == "link":
            path.symlink_to("hosts")
        elif operation == "move":
            shutil.move(path, etc / "moved")
        else:
            os.rename(path, etc / "new")
    except (OSError, shutil.Error):
        pass


OPERATIONS = st.tuples(
    st.sampled_from(["write", "touch", "chmod", "remove", "remove", "mkdir", "link", "move", "rename"]),
    st.sampled_from(NAMES),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(OPERATIONS, max_size=10), after=st.lists(OPERATIONS, max_size=4))
def test_whatever_a_user_does_reverting_all_gives_the_factory(
    before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    with TemporaryDirectory() as directory, overlay_root(Path(directory)) as root:
        for operation, name in before:
            operate(root.etc, operation, name)
        put_back(root, "", machine_made=True)
        assert root.is_factory()
        assert set(root.changes().values()) <= {"same+"}
        for operation, name in after:
            operate(root.etc, operation, name)
        settle_queue(root.layers, Silent())
        changed = tree_of_changes(root)
        root.boot()
        assert tree_of_changes(root) == changed
        put_back(root, "", machine_made=True)
        root.boot()
        assert root.is_factory()
        assert os.listdir(root.upper) == []


def tree_of_changes(root: OverlayRoot) -> dict[str, str]:
    """What is the user's, without copies of what the factory has."""
    return {path: kind for path, kind in root.changes().items() if not kind.startswith("same")}
