from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swupd import history
from swupd.errors import InstallError, ProjectError
from swupd.fs import Directory
from swupd.plan import FileList, Plan, plan_install, plan_update
from swupd.session import Session
from swupd.transaction.install import UnfinishedError
from swupd.transaction.journal import Journal, Purpose, State
from swupd.transaction.recovery import forget_unfinished, recover, way_back

OS_RELEASE = "usr/lib/os-release"


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_at(name: str, *arguments: str) -> Iterator[None]:
    """The call that has these first arguments is the last one that is not made; no later one is either."""
    with pytest.MonkeyPatch.context() as patch:
        dead = False
        for method in ("rename", "unlink", "remove_directory", "remove_tree", "write_file", "hard_link"):
            original = getattr(Directory, method)

            def call(self: Directory, *args: Any, _name: str = method, _original: Any = original, **kw: Any) -> Any:
                nonlocal dead
                dead = dead or (_name == name and args[: len(arguments)] == arguments)
                if dead:
                    raise Killed
                return _original(self, *args, **kw)

            patch.setattr(Directory, method, call)
        with pytest.raises(Killed):
            yield


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def update(tmp_path: Path, publisher: Any, machine: Any, no_sync: None) -> Callable[[], None]:
    """Version 10 is installed; returns what updates to version 20."""
    (tmp_path / "v10").mkdir()
    (tmp_path / "v20").mkdir()
    for version in ("10", "20"):
        write(tmp_path / f"v{version}", a=version, b=version, d__x="same")
        path = tmp_path / f"v{version}" / OS_RELEASE
        path.parent.mkdir(parents=True)
        path.write_text(f"VERSION_ID={version}\n")
    current = publisher.publish(tmp_path / "v10", 10)
    machine.bring(plan_install(current), current)
    wanted = publisher.publish(tmp_path / "v20", 20, current)
    plan = plan_update(current, wanted)
    machine.stage(plan.install)
    return lambda: machine.install(plan.install, plan.remove, wanted)


def journals(machine: Any) -> list[str]:
    return sorted(name for name in os.listdir(machine.statedir.data_dir) if name.startswith("journal"))


def kept_of(machine: Any) -> list[str]:
    """The first one is the installation of version 10."""
    return sorted(os.listdir(machine.statedir.data_dir / "kept"))


def outcomes(machine: Any) -> list[str]:
    return [event.outcome for event in history.read(machine.statedir.data_dir)]


def test_what_was_being_prepared_is_undone(machine: Any, update: Any, tmp_path: Path, snapshot: Any) -> None:
    with killed_at("hard_link"):
        update()
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")
    assert machine.report.warnings == [
        "an interrupted update from 10 to 20 was undone: it had not changed anything yet"
    ]
    assert (outcomes(machine), journals(machine)) == (["undone"], [])


def test_what_was_committed_is_finished(machine: Any, update: Any, tmp_path: Path, snapshot: Any) -> None:
    with killed_at("rename", ".update.b"):
        update()
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")
    assert machine.report.warnings == ["an interrupted update from 10 to 20 was finished"]
    assert (outcomes(machine), journals(machine)) == (["finished later"], [])


def test_what_cannot_be_finished_is_undone(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any, monkeypatch: Any
) -> None:
    with killed_at("rename", ".update.b"):
        update()
    original = Directory.rename

    def rename(self: Directory, old: str, new: str, **options: Any) -> None:
        if old == ".update.b":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        original(self, old, new, **options)

    monkeypatch.setattr(Directory, "rename", rename)
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")
    assert "/b: Operation not permitted; nothing was changed" in machine.report.warnings[0]
    assert (outcomes(machine), journals(machine)) == (["undone"], [])


def test_what_follows_is_done_after_all(machine: Any, update: Any) -> None:
    with killed_at("rename", "journal.installed"):
        update()
    assert not machine.statedir.version_file.exists()
    machine.recover()
    assert machine.statedir.version_file.read_text() == "20\n"
    assert journals(machine) == []


def test_scripts_run_after_all(machine: Any, update: Any) -> None:
    machine.purpose = Purpose("update", 10, 20, boot=True, record_version=True)
    with killed_at("rename", ".update.b"):
        update()
    machine.recover()
    assert any("there is no boot manager" in text for text in machine.report.warnings)


def test_a_root_that_is_gone_is_not_made_again(machine: Any, update: Any, tmp_path: Path) -> None:
    with killed_at("rename", ".update.b"):
        update()
    machine.root.rename(tmp_path / "elsewhere")
    machine.recover()
    assert "is not there any more" in machine.report.warnings[0]
    assert (journals(machine), kept_of(machine)) == ([], ["1"])
    assert not machine.root.exists()


def test_a_root_that_is_mounted_elsewhere_now_is_finished_there(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    with killed_at("rename", ".update.b"):
        update()
    machine.root = machine.root.rename(tmp_path / "elsewhere")
    machine.settings = replace(machine.settings, root=machine.root)
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")
    assert journals(machine) == []


def test_a_command_for_another_root_leaves_the_interrupted_one_alone(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    with killed_at("rename", ".update.b"):
        update()
    before = snapshot(machine.root)
    (tmp_path / "other").mkdir()
    machine.settings = replace(machine.settings, root=tmp_path / "other")
    with pytest.raises(InstallError, match=f"belongs to {machine.root}, where update from 10 to 20 was") as caught:
        machine.recover()
    assert f"swupd diagnose --path {machine.root}" in caught.value.hint
    assert snapshot(machine.root) == before
    assert journals(machine) == ["journal"]


def test_looking_at_a_root_finishes_its_files_and_runs_none_of_its_programs(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    machine.purpose = Purpose("update", 10, 20, boot=True, record_version=True)
    with killed_at("rename", ".update.b"):
        update()
    machine.recover(looking=True)
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")
    (warning,) = machine.report.warnings
    assert warning.startswith("the files of an interrupted update from 10 to 20 are in place; the next command")
    assert journals(machine) == ["journal.installed"]
    machine.recover()
    assert any("there is no boot manager" in text for text in machine.report.warnings)
    assert (outcomes(machine), journals(machine)) == (["finished later"], [])


def test_another_system_at_the_same_path_is_not_touched(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    update()
    with killed_at("unlink", "x"):
        machine.install((), ["/d/x"], {})
    machine.root.rename(tmp_path / "elsewhere")
    write(machine.root, d__x="another system's")
    before = snapshot(machine.root)
    machine.recover()
    assert snapshot(machine.root) == before
    assert "it is another system now" in machine.report.warnings[0]
    assert journals(machine) == []


def test_a_copy_of_the_root_is_recognised_by_what_lies_in_it(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    with killed_at("rename", ".update.b"):
        update()
    machine.root.rename(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", machine.root, symlinks=True)
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v20")


def test_what_somebody_else_has_updated_since_is_left_alone(machine: Any, update: Any) -> None:
    with killed_at("rename", ".update.b"):
        update()
    (machine.root / OS_RELEASE).write_text("VERSION_ID=30\n")
    (machine.root / "b").write_text("30")
    machine.recover()
    assert (machine.root / "b").read_text() == "30"
    assert not [path for path in machine.root.rglob("*") if path.name.startswith(".update.")]
    assert "changed by something else" in machine.report.warnings[0]
    assert journals(machine) == []


def test_a_damaged_journal_is_put_aside_and_stops_nobody_twice(machine: Any, update: Any) -> None:
    with killed_at("rename", ".update.b"):
        update()
    (machine.statedir.data_dir / "journal").write_bytes(b"damaged")
    machine.recover()
    assert "swupd repair" in machine.report.warnings[0]
    assert journals(machine) == ["journal.damaged"]
    machine.recover()
    assert len(machine.report.warnings) == 1


def test_a_journal_that_was_not_written_to_its_end_is_nothing(
    machine: Any, update: Any, tmp_path: Path, snapshot: Any
) -> None:
    (machine.statedir.data_dir / "journal.preparing").write_bytes(b'{"format":1')
    machine.recover()
    assert (machine.report.warnings, journals(machine)) == ([], [])


@pytest.fixture
def stuck(machine: Any, update: Any, monkeypatch: Any) -> Callable[[], None]:
    """An installation that can neither be finished nor undone, until this is called."""
    with killed_at("rename", ".update.b"):
        update()
    original = Directory.rename

    def rename(self: Directory, old: str, new: str, **options: Any) -> None:
        if old == ".update.b" or new == "a":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(self, old, new, **options)

    monkeypatch.setattr(Directory, "rename", rename)
    return lambda: monkeypatch.setattr(Directory, "rename", original)


def test_what_can_neither_be_finished_nor_undone_is_tried_again(
    machine: Any, stuck: Any, tmp_path: Path, snapshot: Any
) -> None:
    for _ in range(2):
        with pytest.raises(UnfinishedError, match="/a: Input/output error") as caught:
            machine.recover()
        assert "swupd repair" in caught.value.hint
        assert journals(machine) == ["journal.undo"]
    stuck()
    machine.recover()
    assert snapshot(machine.root) == snapshot(tmp_path / "v10")
    assert journals(machine) == []


def test_a_repair_goes_on_nevertheless_and_drops_it_in_the_end(machine: Any, stuck: Any) -> None:
    with ExitStack() as resources:
        recover(Session(machine.settings, machine.report, resources), repairing=True)
    assert "the repair goes on nevertheless" in machine.report.warnings[0]
    stuck()
    forget_unfinished(machine.statedir.data_dir)
    assert (journals(machine), kept_of(machine)) == ([], ["1"])


def test_an_unfinished_installation_stands_in_the_way_of_the_next(machine: Any, update: Any) -> None:
    with killed_at("rename", ".update.b"):
        update()
    with pytest.raises(InstallError, match="an earlier installation is unfinished"):
        update()


def test_a_repair_that_was_killed_is_finished_past_its_failures(
    machine: Any, publisher: Any, update: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    files: FileList = publisher.publish(tmp_path / "v10", 10)
    (machine.root / "a").write_text("damaged")
    (machine.root / "b").write_text("damaged")
    entries = [files["/a"], files["/b"]]
    machine.stage(entries)
    with killed_at("rename", ".update.a"):
        machine.apply(entries, [], files)
    original = Directory.rename

    def rename(self: Directory, old: str, new: str, **options: Any) -> None:
        if old == ".update.a":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        original(self, old, new, **options)

    monkeypatch.setattr(Directory, "rename", rename)
    machine.recover()
    assert (machine.root / "a").read_text() == "damaged"
    assert (machine.root / "b").read_text() == "10"
    assert "/a is left as it is: Operation not permitted" in machine.report.warnings


def test_an_update_that_is_complete_drops_what_was_kept_before_it(machine: Any, update: Any) -> None:
    update()
    assert kept_of(machine) == ["2"]
    machine.install((), ["/d/x"], {})
    assert kept_of(machine) == ["3"]


def test_the_way_back_undoes_what_followed() -> None:
    there = Purpose("bundle-add a", 10, 20, track=("a",), untrack=("b",), boot=True, record_version=True)
    back = way_back(there)
    assert (back.from_version, back.to_version, back.track, back.untrack) == (20, 10, ("b",), ("a",))
    assert (back.boot, back.record_version) == (True, True)


# -- any tree to any other, interrupted anywhere -----------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", ".update.a"])
LEAVES = st.one_of(st.sampled_from(["1", "2", "3"]), st.sampled_from(["-> a", "-> ../b", "-> missing"]))
TREES = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=8), max_size=4
)
CHANGING = (
    *("write_file", "make_link", "make_directory", "set_attributes", "hard_link", "rename", "exchange"),
    *("unlink", "remove_directory", "sync", "sync_names"),
)


def build(root: Path, tree: dict[str, Any]) -> Path:
    root.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            build(root / name, content)
        elif content.startswith("-> "):
            (root / name).symlink_to(content[3:])
        else:
            (root / name).write_text(content)
    return root


@contextmanager
def interrupted(number: int, error: int) -> Iterator[None]:
    """The number-th changing call fails, and all that follow with error 0, which means that the process is killed."""
    calls = 0
    with pytest.MonkeyPatch.context() as patch:
        for method in CHANGING:
            original = getattr(Directory, method)

            def call(self: Directory, *args: Any, _original: Any = original, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == number and error:
                    raise OSError(error, os.strerror(error))
                if calls >= number and not error:
                    raise Killed
                return _original(self, *args, **options)

            patch.setattr(Directory, method, call)
        with suppress(Killed, OSError, ProjectError):
            yield


@given(
    old=TREES,
    new=TREES,
    interruptions=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from([0, errno.EIO, errno.ENOSPC])), min_size=1, max_size=3
    ),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_tree_is_exactly_old_or_exactly_new_after_any_interruptions(
    *,
    old: dict[str, Any],
    new: dict[str, Any],
    interruptions: list[tuple[int, int]],
    new_machine: Any,
    snapshot: Callable[[Path], dict[str, str]],
    no_sync: None,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        publisher, machine = new_machine(here)
        current = publisher.publish(build(here / "v10", old), 10)
        machine.bring(plan_install(current), current)
        wanted = publisher.publish(build(here / "v20", new), 20, current)
        plan: Plan = plan_update(current, wanted)
        machine.stage(plan.install)
        trees = snapshot(here / "v10"), snapshot(here / "v20")
        (number, error), *more = interruptions
        with interrupted(number, error):
            machine.install(plan.install, plan.remove, wanted)
        if error:
            assert snapshot(machine.root) in trees
        for number, error in more:
            with interrupted(number, error):
                machine.recover()
        machine.recover()
        assert snapshot(machine.root) in trees
        assert journals(machine) == []
        with Directory.open(machine.statedir.data_dir) as data:
            assert all(Journal.open(data, state) is None for state in State)
