from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd.errors import DiskSpaceError, InstallError, ProjectError, UnsafePathError
from swupd.formats.manifest import Entry
from swupd.fs import Directory
from swupd.plan import FileList, Plan, plan_install, plan_update

CHANGING = (
    "write_file",
    "make_link",
    "make_directory",
    "set_attributes",
    "hard_link",
    "rename",
    "unlink",
    "remove_directory",
    "exchange",
    "copy_file",
    "sync",
    "sync_names",
)


def build(root: Path, tree: dict[str, Any]) -> Path:
    """Make a tree: a dict is a directory, "-> x" a link, bytes or any other text a file."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        if isinstance(content, dict):
            build(path, content)
        elif isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_text(content)
    return root


@pytest.fixture
def system(tmp_path: Path, publisher: Any, machine: Any) -> Callable[[dict[str, Any]], FileList]:
    """Installs a tree as version 10."""

    def make(tree: dict[str, Any]) -> FileList:
        files = publisher.publish(build(tmp_path / "v10", tree), 10)
        machine.bring(plan_install(files), files)
        return files

    return make


@pytest.fixture
def update(tmp_path: Path, publisher: Any, machine: Any) -> Callable[[FileList, dict[str, Any]], Any]:
    """Updates to a tree as version 20."""

    def make(current: FileList, tree: dict[str, Any]) -> Any:
        wanted = publisher.publish(build(tmp_path / "v20", tree), 20, current)
        return machine.bring(plan_update(current, wanted), wanted, current)

    return make


# -- the ordinary way --------------------------------------------------------------------------------------------------


def test_an_empty_root_gets_the_whole_tree(
    tmp_path: Path, machine: Any, system: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    system({"usr": {"lib": {"os-release": "10", "a": "a"}, "bin": {}}, "lib": "-> usr/lib", "etc": {"conf": "x"}})
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")


def test_every_mode_and_time_arrives(tmp_path: Path, publisher: Any, machine: Any) -> None:
    source = build(tmp_path / "v10", {"d": {"setuid": "x", "secret": "y"}})
    (source / "d").chmod(0o1777)
    (source / "d/setuid").chmod(0o4755)
    (source / "d/secret").chmod(0o600)
    os.utime(source / "d/secret", (1000, 1000))
    files = publisher.publish(source, 10)
    machine.bring(plan_install(files), files)
    modes = [stat.S_IMODE((machine.root / name).stat().st_mode) for name in ("d", "d/setuid", "d/secret")]
    assert modes == [0o1777, 0o4755, 0o600]
    assert (machine.root / "d/secret").stat().st_mtime == 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owners_arrive(tmp_path: Path, publisher: Any, machine: Any) -> None:
    source = build(tmp_path / "v10", {"d": {"f": "x"}, "l": "-> d"})
    for name, owner in (("d", 7), ("d/f", 8), ("l", 9)):
        os.chown(source / name, owner, owner + 100, follow_symlinks=False)
    files = publisher.publish(source, 10)
    machine.bring(plan_install(files), files)
    owners = [(machine.root / name).lstat() for name in ("d", "d/f", "l")]
    assert [(status.st_uid, status.st_gid) for status in owners] == [(7, 107), (8, 108), (9, 109)]


def test_an_update_changes_adds_and_removes(
    tmp_path: Path, machine: Any, system: Any, update: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    current = system({"d": {"same": "1", "changed": "1", "gone": "1"}, "old": {"x": "1"}})
    result = update(current, {"d": {"same": "1", "changed": "2", "new": "2"}, "fresh": {"sub": {"y": "2"}}})
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")
    assert (result.installed, result.replaced, result.failures) == (4, 1, ())
    assert set(result.removed) == {"/d/gone", "/old", "/old/x"}


def test_attributes_of_a_directory_that_exists_change(
    tmp_path: Path, publisher: Any, machine: Any, system: Any
) -> None:
    current = system({"d": {"f": "1"}})
    source = build(tmp_path / "v20", {"d": {"f": "1"}})
    (source / "d").chmod(0o750)
    wanted = publisher.publish(source, 20, current)
    result = machine.bring(plan_update(current, wanted), wanted)
    assert stat.S_IMODE((machine.root / "d").stat().st_mode) == 0o750
    assert result.replaced == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"x": "file"}, {"x": {"below": {"f": "1"}}}),
        ({"x": "-> y", "y": {"f": "1"}}, {"x": {"f": "2"}, "y": {"f": "1"}}),
        ({"x": {"sub": {"f": "1"}, "g": "2"}}, {"x": "file"}),
        ({"x": {"sub": {"f": "1"}}, "y": {}}, {"x": "-> y", "y": {"sub": {"f": "1"}}}),
        ({"x": "file"}, {"x": "-> y"}),
        ({"x": "-> y"}, {"x": "file"}),
    ],
)
def test_a_path_changes_its_type(
    *,
    tmp_path: Path,
    machine: Any,
    system: Any,
    update: Any,
    snapshot: Callable[[Path], dict[str, str]],
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    result = update(system(old), new)
    assert not result.failures
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")


def test_os_release_is_replaced_last(tmp_path: Path, machine: Any, system: Any, update: Any, monkeypatch: Any) -> None:
    current = system({"usr": {"lib": {"os-release": "10", "z": "1"}}, "a": "1", "gone": "1"})
    done: list[str] = []
    for method in ("rename", "unlink"):
        original = getattr(Directory, method)

        def spy(self: Directory, name: str, *rest: Any, _original: Any = original, **options: Any) -> Any:
            if self.path.startswith(str(machine.root)):
                done.append(rest[0] if rest else name)
            return _original(self, name, *rest, **options)

        monkeypatch.setattr(Directory, method, spy)
    update(current, {"usr": {"lib": {"os-release": "20", "z": "2"}}, "a": "2"})
    assert done == ["a", "z", "gone", "os-release"]


def test_two_identical_files_do_not_share_an_inode(machine: Any, system: Any) -> None:
    system({"a": "same", "b": "same", "c": "same"})
    inodes = {(machine.root / name).stat().st_ino for name in "abc"}
    assert len(inodes) == 3
    assert all((machine.root / name).stat().st_nlink == 1 for name in "abc")


def test_an_installed_file_shares_no_inode_with_the_state_directory(machine: Any, system: Any) -> None:
    system({"a": "1"})
    assert (machine.root / "a").stat().st_nlink == 1
    assert not machine.staged


def test_objects_are_copied_where_hard_links_are_impossible(
    tmp_path: Path, machine: Any, system: Any, snapshot: Callable[[Path], dict[str, str]], monkeypatch: Any
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Directory, "hard_link", refuse)
    system({"d": {"a": "1", "b": "2"}})
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")


def test_names_as_long_as_they_may_be_are_installed(
    tmp_path: Path, machine: Any, system: Any, update: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    name = "n" * 255
    update(system({name: "1", "d" * 250: {"x": "1"}}), {name: "2", "d" * 250: "2"})
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")


def test_a_parent_that_no_manifest_has_is_made(tmp_path: Path, publisher: Any, machine: Any) -> None:
    files = publisher.publish(build(tmp_path / "v10", {"a": {"b": {"f": "1"}}}), 10)
    del files["/a"], files["/a/b"]
    machine.bring(plan_install(files), files)
    assert (machine.root / "a/b/f").read_text() == "1"


def test_a_parent_that_has_disappeared_is_made_as_the_manifests_say(
    tmp_path: Path, publisher: Any, machine: Any, system: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    source = build(tmp_path / "v10", {"d": {"e": {"f": "1"}}})
    (source / "d").chmod(0o700)
    current = publisher.publish(source, 10)
    machine.bring(plan_install(current), current)
    shutil.rmtree(machine.root / "d")
    (source / "d/e/g").write_text("2")
    wanted = publisher.publish(source, 20, current)
    machine.bring(plan_update(current, wanted), wanted)
    assert stat.S_IMODE((machine.root / "d").stat().st_mode) == 0o700
    assert (machine.root / "d/e/g").read_text() == "2"


# -- what is not ours --------------------------------------------------------------------------------------------------


def test_a_directory_with_a_users_file_is_kept_and_named(machine: Any, system: Any, update: Any) -> None:
    current = system({"d": {"f": "1"}})
    (machine.root / "d/mine").write_text("precious")
    result = update(current, {})
    assert result.kept == ("/d",)
    assert not result.failures
    assert (machine.root / "d/mine").read_text() == "precious"
    assert not (machine.root / "d/f").exists()


def test_a_directory_with_a_users_file_does_not_become_a_link_and_the_rest_goes_on(
    machine: Any, system: Any, update: Any
) -> None:
    current = system({"d": {"sub": {"f": "1"}}, "e": {}, "x": "1"})
    (machine.root / "d/sub/mine").write_text("precious")
    result = update(current, {"d": "-> e", "e": {}, "x": "2"})
    assert [path for path, _ in result.failures] == ["/d"]
    assert "/d/sub/mine" in result.failures[0].reason
    assert sorted(os.listdir(machine.root / "d/sub")) == ["f", "mine"]
    assert (machine.root / "x").read_text() == "2"


def test_install_reports_paths_that_failed_with_a_hint_to_repair(
    tmp_path: Path, publisher: Any, machine: Any, system: Any
) -> None:
    current = system({"d": {"f": "1"}})
    (machine.root / "d/mine").write_text("precious")
    wanted = publisher.publish(build(tmp_path / "v20", {"d": "file"}), 20, current)
    machine.stage([wanted["/d"]])
    result = machine.install([wanted["/d"]], ["/d/f"], wanted)
    with pytest.raises(InstallError, match="/d: cannot become a file while /d/mine is in there") as caught:
        result.check()
    assert "swupd repair" in caught.value.hint


def test_nothing_is_written_through_a_link_in_a_parent(
    tmp_path: Path, publisher: Any, machine: Any, system: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    current = system({"d": {"f": "1"}})
    shutil.move(machine.root / "d", tmp_path / "elsewhere")
    (machine.root / "d").symlink_to(tmp_path / "elsewhere")
    before = snapshot(machine.root), snapshot(tmp_path / "elsewhere")
    wanted = publisher.publish(build(tmp_path / "v20", {"d": {"f": "2", "g": "2"}, "z": "2"}), 20, current)
    entries = [wanted["/d/f"], wanted["/d/g"], wanted["/z"]]
    machine.stage(entries)
    with pytest.raises(UnsafePathError, match="/d is a symbolic link where a directory is expected"):
        machine.install(entries, [], wanted)
    assert (snapshot(machine.root), snapshot(tmp_path / "elsewhere")) == before
    result = machine.apply(entries, [], wanted)
    assert [path for path, _ in result.failures] == ["/d/f", "/d/g"]
    assert snapshot(tmp_path / "elsewhere") == before[1]
    assert (machine.root / "z").read_text() == "2"


def test_nothing_is_removed_through_a_link_in_a_parent(tmp_path: Path, machine: Any, system: Any, update: Any) -> None:
    current = system({"d": {"f": "1"}})
    shutil.move(machine.root / "d", tmp_path / "elsewhere")
    (machine.root / "d").symlink_to(tmp_path / "elsewhere")
    update(current, {})
    assert (tmp_path / "elsewhere/f").exists()


def test_a_directory_that_became_a_link_is_put_back_when_its_entry_is_installed(
    tmp_path: Path, machine: Any, system: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    files = system({"d": {"f": "1"}})
    shutil.move(machine.root / "d", tmp_path / "elsewhere")
    (machine.root / "d").symlink_to(tmp_path / "elsewhere")
    machine.bring(plan_install(files), files)
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")
    assert (tmp_path / "elsewhere/f").exists()


def test_files_below_a_link_of_the_manifests_are_a_mistake_of_the_publisher(
    tmp_path: Path, publisher: Any, machine: Any
) -> None:
    files = publisher.publish(build(tmp_path / "v10", {"d": {"f": "1"}, "l": "-> d"}), 10)
    wanted = {"/l": files["/l"], "/l/f": files["/d/f"]._replace(name="/l/f")}
    machine.stage(wanted.values())
    with pytest.raises(InstallError, match="files below /l, which is a symbolic link"):
        machine.install(wanted.values(), [], wanted)
    assert os.listdir(machine.root) == []


# -- interruptions -----------------------------------------------------------------------------------------------------


OLD: dict[str, Any] = {
    "usr": {"lib": {"os-release": "10", "a": "1", "b": "1"}, "share": {"doc": {"x": "1"}}, "lib64": {"ld": "1"}},
    "opt": "-> usr",
    "bin": "file",
    "gone": {"f": "1"},
}
NEW: dict[str, Any] = {
    "usr": {"lib": {"os-release": "20", "a": "2", "new": {"c": "2"}}, "share": {}, "lib64": "-> lib"},
    "opt": {"tool": "2"},
    "bin": {"sh": "2"},
}


class Killed(BaseException):
    """The process is gone: nothing that it would still like to do happens."""


@contextmanager
def failing_at(
    number: int, monkeypatch: pytest.MonkeyPatch, machine: Any, error: int, *, lasting: bool = False
) -> Iterator[list[str]]:
    """The number-th changing call in the root and the state directory fails with `error`; with KILL, it and all later
    calls do nothing at all. Yields the list of such calls."""
    calls: list[str] = []
    top = str(machine.root.parent)
    with monkeypatch.context() as patch:
        for method in CHANGING:
            original = getattr(Directory, method)

            def counted(self: Directory, *args: Any, _name: str = method, _original: Any = original, **kw: Any) -> Any:
                if self.path.startswith(top):
                    calls.append(f"{_name} {args}")
                    if error == KILL and len(calls) >= number:
                        raise Killed
                    if error != KILL and (len(calls) == number or (lasting and len(calls) > number)):
                        raise OSError(error, os.strerror(error))
                return _original(self, *args, **kw)

            patch.setattr(Directory, method, counted)
        yield calls


KILL = 0


@pytest.fixture
def staged_update(
    tmp_path: Path, publisher: Any, machine: Any, system: Any, no_sync: None
) -> tuple[FileList, FileList, Plan]:
    """A machine with OLD, and everything staged for NEW."""
    current = system(OLD)
    wanted = publisher.publish(build(tmp_path / "v20", NEW), 20, current)
    plan = plan_update(current, wanted)
    machine.stage(plan.install)
    return current, wanted, plan


@pytest.fixture(params=["everything", "no exchange", "no hard links"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What it can do."""

    def refuse(number: int) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            raise OSError(number, os.strerror(number))

        return call

    if request.param == "no exchange":
        monkeypatch.setattr(Directory, "exchange", refuse(errno.EINVAL))
    if request.param == "no hard links":
        monkeypatch.setattr(Directory, "hard_link", refuse(errno.EXDEV))
        original = Directory.rename

        def rename(self: Directory, old: str, new: str, *, to: Directory | None = None) -> None:
            if to is not None and "/kept/" in self.path:
                refuse(errno.EXDEV)()
            original(self, old, new, to=to)

        monkeypatch.setattr(Directory, "rename", rename)
    return str(request.param)


def rounds(machine: Any, tmp_path: Path, step: int = 1) -> Iterator[int]:
    """Numbers from 1 on; the root and the objects are as at the beginning for each."""
    for name in ("root", "state"):
        shutil.copytree(tmp_path / "machine" / name, tmp_path / f"saved-{name}", symlinks=True)
    for number in count(1, step):
        yield number
        for name in ("root", "state"):
            shutil.rmtree(tmp_path / "machine" / name)
            shutil.copytree(tmp_path / f"saved-{name}", tmp_path / "machine" / name, symlinks=True)
        machine.report.warnings.clear()


def test_an_error_at_any_call_leaves_exactly_the_old_tree_or_the_new_one(
    *,
    tmp_path: Path,
    machine: Any,
    staged_update: Any,
    file_system: str,
    monkeypatch: Any,
    snapshot: Callable[[Path], dict[str, str]],
) -> None:
    _, wanted, plan = staged_update
    old, new = snapshot(machine.root), snapshot(tmp_path / "v20")
    undone = 0
    for number in rounds(machine, tmp_path):
        error = errno.EIO if number % 2 else errno.ENOSPC
        with failing_at(number, monkeypatch, machine, error) as calls:
            try:
                machine.install(plan.install, plan.remove, wanted)
                told = ""
            except (InstallError, DiskSpaceError) as raised:
                told = str(raised)
            except OSError:
                told = "at the end of the journal"  # `complete` says it in words
        if len(calls) < number:
            break
        found = snapshot(machine.root)
        if "nothing was changed" in told:
            undone += 1
            assert found == old, f"after call {number} ({calls[number - 1]}): {told}"
        else:
            assert found == new, f"after call {number} ({calls[number - 1]}): {told}"
        machine.recover()
        assert snapshot(machine.root) in (old, new)
        machine.install(plan.install, plan.remove, wanted)
        assert snapshot(machine.root) == new, f"after call {number} ({calls[number - 1]})"
    assert undone > 40


def test_after_being_killed_at_any_call_the_next_run_makes_the_tree_exactly_old_or_new(
    *,
    tmp_path: Path,
    machine: Any,
    staged_update: Any,
    file_system: str,
    monkeypatch: Any,
    snapshot: Callable[[Path], dict[str, str]],
) -> None:
    _, wanted, plan = staged_update
    old, new = snapshot(machine.root), snapshot(tmp_path / "v20")
    ends = []
    for number in rounds(machine, tmp_path):
        with failing_at(number, monkeypatch, machine, KILL) as calls:
            try:
                machine.install(plan.install, plan.remove, wanted)
            except Killed:
                pass
            else:
                break
        machine.recover()
        found = snapshot(machine.root)
        assert found in (old, new), f"after call {number} ({calls[number - 1]})"
        ends.append(found == new)
        assert not [name for name in os.listdir(machine.statedir.data_dir) if name.startswith("journal")]
        machine.install(plan.install, plan.remove, wanted)
        assert snapshot(machine.root) == new
    assert ends == sorted(ends), "old up to one call, and new from there on"
    assert set(ends) == {False, True}
    assert number > 40


@pytest.mark.parametrize("second", [KILL, errno.EIO])
def test_a_recovery_that_is_interrupted_itself_is_continued_by_the_next(
    *,
    second: int,
    tmp_path: Path,
    machine: Any,
    staged_update: Any,
    file_system: str,
    monkeypatch: Any,
    snapshot: Callable[[Path], dict[str, str]],
) -> None:
    _, wanted, plan = staged_update
    old, new = snapshot(machine.root), snapshot(tmp_path / "v20")
    chosen = random.Random(file_system)
    for number in rounds(machine, tmp_path, step=3):
        with failing_at(number, monkeypatch, machine, KILL) as calls:
            try:
                machine.install(plan.install, plan.remove, wanted)
            except Killed:
                pass
            else:
                break
        points = []
        for _ in range(3):
            points.append(chosen.randint(1, 25))
            with (
                failing_at(points[-1], monkeypatch, machine, second, lasting=True) as again,
                suppress(Killed, OSError, ProjectError),
            ):
                machine.recover()
        machine.recover()
        where = f"after call {number} ({calls[number - 1]}), then {points} ({again})"
        assert snapshot(machine.root) in (old, new), where
        machine.install(plan.install, plan.remove, wanted)
        assert snapshot(machine.root) == new, where


def test_errors_that_stay_are_survived_by_the_next_run(
    *,
    tmp_path: Path,
    machine: Any,
    staged_update: Any,
    file_system: str,
    monkeypatch: Any,
    snapshot: Callable[[Path], dict[str, str]],
) -> None:
    _, wanted, plan = staged_update
    old, new = snapshot(machine.root), snapshot(tmp_path / "v20")
    for number in rounds(machine, tmp_path, step=2):
        with (
            failing_at(number, monkeypatch, machine, errno.EROFS, lasting=True) as calls,
            suppress(OSError, ProjectError),
        ):
            machine.install(plan.install, plan.remove, wanted)
        if len(calls) < number:
            break
        machine.recover()
        assert snapshot(machine.root) in (old, new), f"after call {number} ({calls[number - 1]})"
        machine.install(plan.install, plan.remove, wanted)
        assert snapshot(machine.root) == new


def test_a_full_disk_while_preparing_is_told_as_such_and_changes_nothing(
    machine: Any, staged_update: Any, monkeypatch: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    _, wanted, plan = staged_update
    old = snapshot(machine.root)
    with (
        failing_at(5, monkeypatch, machine, errno.ENOSPC),
        pytest.raises(DiskSpaceError, match="nothing was changed"),
    ):
        machine.install(plan.install, plan.remove, wanted)
    assert snapshot(machine.root) == old


def test_an_object_that_is_not_staged_changes_nothing(
    machine: Any, staged_update: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    _, wanted, plan = staged_update
    old = snapshot(machine.root)
    (machine.statedir.staged / wanted["/usr/lib/os-release"].hash).unlink()
    with pytest.raises(InstallError, match="for /usr/lib/os-release is not staged; nothing was changed"):
        machine.install(plan.install, plan.remove, wanted)
    assert snapshot(machine.root) == old


def test_a_signal_waits_until_the_changes_are_done(
    tmp_path: Path, machine: Any, staged_update: Any, monkeypatch: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    _, wanted, plan = staged_update
    original = Directory.rename

    def interrupt(self: Directory, old: str, new: str, **options: Any) -> None:
        if old.startswith(".update."):
            os.kill(os.getpid(), signal.SIGINT)
        original(self, old, new, **options)

    monkeypatch.setattr(Directory, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine.install(plan.install, plan.remove, wanted)
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")


def test_what_has_a_name_like_ours_and_is_not_in_the_journal_stays(machine: Any, system: Any, update: Any) -> None:
    current = system({"d": {"f": "1", "g": "1"}})
    build(machine.root / "d", {".update.f": {"deep": {"x": "1"}}, ".deleted.f": "a user's", ".update.": "too"})
    update(current, {"d": {"f": "2", "g": "1"}})
    assert sorted(os.listdir(machine.root / "d")) == [".deleted.f", ".update.", ".update.f", "f", "g"]
    assert (machine.root / "d/f").read_text() == "2"


# -- any tree to any other ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", ".update.a"])
LEAVES = st.one_of(st.sampled_from(["1", "2", "3"]), st.sampled_from(["-> a", "-> ../b", "-> missing"]))
TREES = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=8), max_size=4
)


@given(old=TREES, new=TREES, users=st.lists(st.integers(0, 50), max_size=3))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_tree_becomes_any_other_and_users_files_survive(
    *,
    old: dict[str, Any],
    new: dict[str, Any],
    users: list[int],
    new_machine: Any,
    snapshot: Callable[[Path], dict[str, str]],
    no_sync: None,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        publisher, machine = new_machine(here)
        current = publisher.publish(build(here / "v10", old), 10)
        machine.bring(plan_install(current), current)
        assert snapshot(machine.root) == snapshot(here / "v10")

        directories = [machine.root, *(machine.root / e.name[1:] for e in current.values() if e.flags[0] == "D")]
        for number in users:
            (directories[number % len(directories)] / "mine").write_text("precious")
        mine = {name: value for name, value in snapshot(machine.root).items() if name.endswith("/mine")}

        wanted = publisher.publish(build(here / "v20", new), 20, current)
        result = machine.bring(plan_update(current, wanted), wanted, current)
        after, expected = snapshot(machine.root), snapshot(here / "v20")

        assert {name: value for name, value in after.items() if name.endswith("/mine")} == mine
        failed = [path for path, _ in result.failures]
        assert all(any(name.startswith(f"{path}/") for name in mine) for path in failed)
        kept = {parent for name in mine for parent in _parents(name)}
        for name in after.keys() | expected.keys():
            if name not in mine and not any(f"{name}/".startswith(f"{path}/") for path in failed):
                assert after.get(name) == expected.get(name) or (name in kept and name not in expected), name


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def test_entries_may_come_in_any_order(
    tmp_path: Path, publisher: Any, machine: Any, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    files: FileList = publisher.publish(build(tmp_path / "v10", OLD), 10)
    entries: list[Entry] = list(files.values())[::-1]
    machine.stage(entries)
    machine.install(entries, [], files)
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")
