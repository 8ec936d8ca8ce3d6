from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from swupd.errors import UsageError
from swupd.formats.manifest import Entry
from swupd.plan import FileList, Plan, plan_install
from swupd.verify import (
    DEFAULT_PICKY_WHITELIST,
    Findings,
    check,
    compile_whitelist,
    find_extra,
    settle,
)

WHITELIST = compile_whitelist(DEFAULT_PICKY_WHITELIST)


@pytest.fixture
def files(tmp_path: Path, publisher: Any, machine: Any) -> FileList:
    """An installed system."""
    tree = tmp_path / "v10"
    for path in ("usr/bin", "usr/lib/kernel", "etc", "var/lib"):
        (tree / path).mkdir(parents=True)
    for path in ("usr/bin/a", "usr/bin/b", "usr/lib/kernel/k", "etc/conf", "var/lib/state"):
        (tree / path).write_text(path)
    (tree / "usr/link").symlink_to("bin")
    files = publisher.publish(tree, 10)
    machine.bring(plan_install(files), files)
    files["/usr/gone"] = Entry.deleted(10, "/usr/gone")
    files["/usr/gone/below"] = Entry.deleted(10, "/usr/gone/below")
    files["/usr/ghost"] = Entry.ghosted(10, "/usr/ghost")
    return files


def look(machine: Any, files: FileList, **options: Any) -> Findings:
    return check(machine.root, files, machine.report, **options)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.name for entry in entries]


def extra(machine: Any, files: FileList, **options: Any) -> list[str]:
    return [found.shown for found in find_extra(machine.root, files, **({"whitelist": WHITELIST} | options))]


# -- check -------------------------------------------------------------------------------------------------------------


def test_a_good_system_has_no_findings(machine: Any, files: FileList) -> None:
    findings = look(machine, files)
    assert not findings
    assert findings.checked == len(files)


def test_progress_goes_on_while_files_are_hashed(
    machine: Any, files: FileList, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(machine.report, "progress", lambda done, total, received=0: told.append(100 * done // total))
    one = files["/usr/bin/a"]
    for number in range(3000):
        name = f"/usr/lib/{number}"
        os.link(machine.root / "usr/bin/a", machine.root / name[1:])
        files[name] = one._replace(name=name)
    assert not look(machine, files)
    assert max(after - before for before, after in pairwise(told)) < 50


def test_missing_and_changed_files_are_found(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin/a").write_text("damaged")
    (machine.root / "usr/bin/b").unlink()
    (machine.root / "usr/link").unlink()
    (machine.root / "usr/link").symlink_to("lib")
    (machine.root / "usr/bin").chmod(0o700)
    findings = look(machine, files)
    assert names(findings.missing) == ["/usr/bin/b"]
    assert names(findings.mismatched) == ["/usr/bin", "/usr/bin/a", "/usr/link"]
    assert names(findings.to_install) == ["/usr/bin", "/usr/bin/a", "/usr/bin/b", "/usr/link"]


def test_a_device_in_place_of_a_file_is_a_mismatch(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin/a").unlink()
    os.mkfifo(machine.root / "usr/bin/a")
    assert names(look(machine, files).mismatched) == ["/usr/bin/a"]


def test_deleted_entries_that_exist_are_extraneous_and_ghosted_ones_are_not(machine: Any, files: FileList) -> None:
    (machine.root / "usr/gone").mkdir()
    (machine.root / "usr/gone/below").touch()
    (machine.root / "usr/ghost").touch()
    assert look(machine, files).extraneous == ("/usr/gone/below", "/usr/gone")


def test_what_only_the_boot_manager_deletes_is_not_extraneous(machine: Any, files: FileList) -> None:
    files["/usr/lib/kernel/k"] = Entry.deleted(20, "/usr/lib/kernel/k")
    assert not look(machine, files)


def test_protected_paths_can_be_missing_but_not_mismatched_or_extraneous(machine: Any, files: FileList) -> None:
    (machine.root / "etc/conf").write_text("the administrator's")
    (machine.root / "var/lib").chmod(0o700)
    (machine.root / "var/lib/state").unlink()
    files["/etc/old"] = Entry.deleted(20, "/etc/old")
    (machine.root / "etc/old").touch()
    findings = look(machine, files)
    assert names(findings.missing) == ["/var/lib/state"]
    assert not findings.mismatched
    assert not findings.extraneous


def test_what_lies_behind_a_link_in_a_parent_is_missing(tmp_path: Path, machine: Any, files: FileList) -> None:
    shutil.move(machine.root / "usr/bin", tmp_path / "elsewhere")
    (machine.root / "usr/bin").symlink_to(tmp_path / "elsewhere")
    findings = look(machine, files)
    assert names(findings.mismatched) == ["/usr/bin"]
    assert names(findings.missing) == ["/usr/bin/a", "/usr/bin/b"]


def test_protected_paths_behind_a_link_are_the_administrators(tmp_path: Path, machine: Any, files: FileList) -> None:
    shutil.move(machine.root / "var/lib", tmp_path / "elsewhere")
    (tmp_path / "elsewhere/state").unlink()
    (machine.root / "var/lib").symlink_to(tmp_path / "elsewhere")
    assert not look(machine, files)


def test_a_mount_point_is_never_mismatched(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin").chmod(0o700)
    assert not look(machine, files, mounts=frozenset({"/usr/bin"}))


def test_quick_only_finds_what_is_missing(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin/a").write_text("damaged")
    (machine.root / "usr/bin/b").unlink()
    (machine.root / "usr/gone").touch()
    findings = look(machine, files, quick=True)
    assert names(findings.missing) == ["/usr/bin/b"]
    assert not findings.mismatched
    assert not findings.extraneous


def test_the_check_can_be_limited_to_a_path_and_what_is_below(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin/a").write_text("damaged")
    (machine.root / "usr/link").unlink()
    (machine.root / "usr/bin-2").touch()
    assert names(look(machine, files, below="/usr/bin").to_install) == ["/usr/bin/a"]
    assert names(look(machine, files, below="/usr/bin/").to_install) == ["/usr/bin/a"]
    assert names(look(machine, files, below="/usr/link").to_install) == ["/usr/link"]


def test_what_was_found_can_be_repaired(machine: Any, files: FileList, snapshot: Any) -> None:
    before = snapshot(machine.root)
    shutil.rmtree(machine.root / "usr/bin")
    (machine.root / "usr/bin").write_text("a file")
    (machine.root / "usr/link").unlink()
    findings = look(machine, files)
    machine.bring(Plan(install=findings.to_install), files)
    assert snapshot(machine.root) == before


# -- settle ------------------------------------------------------------------------------------------------------------


def test_rechecked_files_are_installed_only_if_they_differ(machine: Any, files: FileList) -> None:
    (machine.root / "usr/bin/a").write_text("damaged")
    (machine.root / "usr/bin/b").unlink()
    plan = Plan(recheck=(files["/usr/bin/a"], files["/usr/bin/b"], files["/usr/link"]))
    settled = settle(plan, machine.root, files, machine.report)
    assert names(settled.install) == ["/usr/bin/a", "/usr/bin/b"]
    assert not settled.recheck


def test_protected_files_are_created_only_if_nothing_is_there(machine: Any, files: FileList) -> None:
    (machine.root / "etc/conf").write_text("the administrator's")
    shutil.rmtree(machine.root / "var")
    plan = Plan(create=tuple(files[name] for name in ("/etc/conf", "/var", "/var/lib", "/var/lib/state")))
    assert names(settle(plan, machine.root, files, machine.report).install) == ["/var", "/var/lib", "/var/lib/state"]


def test_parents_that_have_disappeared_are_installed_too(machine: Any, files: FileList) -> None:
    shutil.rmtree(machine.root / "usr")
    plan = Plan(install=(files["/usr/bin/a"],))
    assert names(settle(plan, machine.root, files, machine.report).install) == ["/usr", "/usr/bin", "/usr/bin/a"]


def test_an_installation_does_not_touch_the_administrators_files(machine: Any, files: FileList) -> None:
    (machine.root / "etc/conf").write_text("the administrator's")
    (machine.root / "usr/bin/a").write_text("damaged")
    present = {name: entry for name, entry in files.items() if entry.is_present}
    result = machine.bring(plan_install(present), present)
    assert (result.installed, result.replaced) == (0, 1)
    assert (machine.root / "etc/conf").read_text() == "the administrator's"


# -- extra files -------------------------------------------------------------------------------------------------------


def test_unknown_files_and_directories_in_the_picky_tree_are_extra(machine: Any, files: FileList) -> None:
    (machine.root / "usr/new/sub").mkdir(parents=True)
    (machine.root / "usr/new/sub/file").touch()
    (machine.root / "usr/dangling").symlink_to("nowhere")
    (machine.root / "usr/ghost").touch()
    (machine.root / "usr/gone").touch()
    (machine.root / "opt").mkdir()
    assert extra(machine, files) == ["/usr/new/sub/file", "/usr/new/sub/", "/usr/new/", "/usr/gone", "/usr/dangling"]
    assert extra(machine, files, tree="/usr/new/sub") == ["/usr/new/sub/file"]
    assert extra(machine, files, tree="/nowhere") == []
    assert extra(machine, files, tree="/")[0] == "/usr/new/sub/file"
    assert "/opt/" in extra(machine, files, tree="/")


def test_the_whitelist_and_protected_paths_are_left_alone(machine: Any, files: FileList) -> None:
    for path in ("usr/local/bin", "usr/src/mine", "usr/lib/modules/5", "usr/lib/kernel", "home/user", "etc"):
        (machine.root / path).mkdir(parents=True, exist_ok=True)
        (machine.root / path / "file").touch()
    assert extra(machine, files, tree="/") == []
    own = compile_whitelist("/usr/keep/[[:digit:]]+")
    (machine.root / "usr/keep/12").mkdir(parents=True)
    (machine.root / "usr/keep/x").mkdir()
    assert extra(machine, files, whitelist=own) == [
        "/usr/local/bin/file",
        "/usr/local/bin/",
        "/usr/local/",
        "/usr/keep/x/",
    ]


def test_links_are_not_followed_while_looking_for_extra_files(tmp_path: Path, machine: Any, files: FileList) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    (machine.root / "usr/out").symlink_to(tmp_path / "elsewhere")
    assert extra(machine, files) == ["/usr/out"]
    assert extra(machine, files, tree="/usr/out") == []


def test_a_mount_point_is_not_entered(machine: Any, files: FileList) -> None:
    (machine.root / "usr/mnt").mkdir()
    (machine.root / "usr/mnt/file").touch()
    assert extra(machine, files, mounts=frozenset({"/usr/mnt"})) == []


def test_extra_files_can_be_removed_in_the_order_given(machine: Any, files: FileList, snapshot: Any) -> None:
    before = snapshot(machine.root)
    (machine.root / "usr/new/sub").mkdir(parents=True)
    (machine.root / "usr/new/sub/file").touch()
    found = find_extra(machine.root, files, whitelist=WHITELIST)
    result = machine.apply([], [item.name for item in found], files)
    assert result.removed == ("/usr/new/sub/file", "/usr/new/sub", "/usr/new")
    assert snapshot(machine.root) == before


def test_a_whitelist_that_is_no_expression_is_refused() -> None:
    with pytest.raises(UsageError, match="whitelist"):
        compile_whitelist("/usr/(")


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_in_a_snapshot_every_path_is_compared(machine: Any, files: FileList) -> None:
    (machine.root / "etc/conf").write_text("changed")
    (machine.root / "usr/lib/modules").mkdir()
    files["/usr/lib/modules"] = Entry.deleted(10, "/usr/lib/modules")
    assert not look(machine, files)
    findings = look(machine, files, snapshot=True)
    assert names(findings.mismatched) == ["/etc/conf"]
    assert findings.extraneous == ("/usr/lib/modules",)


def test_in_a_snapshot_what_no_bundle_knows_is_extra_wherever_it_is(machine: Any, files: FileList) -> None:
    (machine.root / "var/own").write_text("")
    options = {"tree": "/", "whitelist": compile_whitelist("")}
    assert "/var/own" not in extra(machine, files, **options)
    assert extra(machine, files, snapshot=True, **options) == ["/var/own"]
