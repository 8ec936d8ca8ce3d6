"""The table of ids, and renumbering a root to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import BuildError, SourceError
from mixer.sources.ids import GROUP, USER, IdTable, read_accounts, renumber

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


def accounts(users: dict[str, int], groups: dict[str, int] | None = None) -> dict[str, dict[str, int]]:
    return {USER: users, GROUP: groups or {}}


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    table = IdTable().extended(accounts({"root": 0, "sshd": 101}, {"_ssh": 106}))
    table.save(tmp_path / "ids.txt")
    assert IdTable.load(tmp_path / "ids.txt") == table


def test_a_missing_file_is_an_empty_table(tmp_path: Path) -> None:
    assert IdTable.load(tmp_path / "ids.txt") == IdTable()


@pytest.mark.parametrize(
    "line",
    ["user sshd", "user sshd x", "host a 1", "user sshd -1", "user sshd 99999999999", f"user sshd {'1' * 5000}"],
)
def test_a_damaged_table_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "ids.txt").write_text(f"# ids\n{line}\n")
    with pytest.raises(BuildError, match="line 2"):
        IdTable.load(tmp_path / "ids.txt")


def test_a_name_with_two_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("user a 100\nuser a 101\n")
    with pytest.raises(BuildError, match="a has two ids"):
        IdTable.load(tmp_path / "ids.txt")


def test_a_known_name_gets_its_id_and_a_new_one_what_is_free() -> None:
    table = IdTable(accounts({"sshd": 101, "gone": 102}))
    wanted = table.assigned(accounts({"avahi": 101, "chrony": 102, "postfix": 103, "sshd": 104}))
    assert wanted[USER] == {"avahi": 100, "chrony": 103, "postfix": 104, "sshd": 101}


def test_a_new_name_gets_no_id_that_is_left_to_machines() -> None:
    wanted = IdTable(accounts({"sshd": 100})).assigned(accounts({"resolve": 996, "sshd": 100, "bus": 599, "net": 600}))
    assert wanted[USER] == {"resolve": 101, "sshd": 100, "bus": 599, "net": 102}


def test_a_name_that_was_pinned_among_those_of_machines_keeps_its_id() -> None:
    assert IdTable(accounts({"net": 998})).assigned(accounts({"net": 100}))[USER] == {"net": 998}


def test_ids_that_run_out_are_an_error_before_those_of_machines_are_given() -> None:
    table = IdTable(accounts({f"u{number}": number for number in range(100, 600)}))
    with pytest.raises(BuildError, match="no id is left for the user new"):
        table.assigned(accounts({"new": 700}))


def test_a_root_with_new_ids_of_machines_is_not_admitted() -> None:
    assert not IdTable().admits(accounts({"net": 998}))
    assert IdTable(accounts({"net": 998})).admits(accounts({"net": 998}))


def test_a_fixed_id_that_changes_is_an_error() -> None:
    with pytest.raises(BuildError, match=r"www-data had the fixed id 33 .* now has 34"):
        IdTable(accounts({"www-data": 33})).assigned(accounts({"www-data": 34}))


def test_a_name_that_gets_a_fixed_id_later_keeps_the_one_of_the_mix() -> None:
    assert IdTable(accounts({"_apt": 104})).assigned(accounts({"_apt": 42}))[USER] == {"_apt": 104}


def test_a_root_is_admitted_only_if_its_ids_agree_with_the_table() -> None:
    table = IdTable(accounts({"sshd": 101}))
    assert table.admits(accounts({"sshd": 101, "new": 102}))
    assert not table.admits(accounts({"sshd": 102}))
    assert not table.admits(accounts({"new": 101}))


@given(
    table=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(100, 110), max_size=8),
    built=st.dictionaries(st.sampled_from("abcdefghij"), st.integers(100, 112), max_size=10),
)
@settings(max_examples=100, deadline=None)
def test_assigned_ids_are_unique_and_never_contradict_the_table(table: dict[str, int], built: dict[str, int]) -> None:
    pinned = {name: value for value, name in {value: name for name, value in table.items()}.items()}
    wanted = IdTable(accounts(pinned)).assigned(accounts(built))
    assert wanted[USER].keys() == built.keys()
    assert IdTable(accounts(pinned)).admits(wanted)
    assert len(set(wanted[USER].values())) == len(built)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:104:65534::/run:/bin/false\nbus:x:101:107::/:\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n_ssh:x:106:\nbus:x:107:sshd\n")
    return tmp_path


@needs_root
def test_renumbering_changes_passwd_group_and_all_owners_at_once(root: Path) -> None:
    for name, uid, gid, mode in (
        ("agent", 0, 106, 0o2755),
        ("helper", 0, 107, 0o4754),
        ("a", 104, 0, 0o600),
        ("b", 101, 0, 0o600),
    ):
        (root / name).write_text(name)
        os.chown(root / name, uid, gid)
        (root / name).chmod(mode)
    (root / "link").symlink_to("a")
    os.lchown(root / "link", 104, 107)
    table = IdTable(accounts({"sshd": 101, "bus": 104}, {"_ssh": 107, "bus": 105}))

    changed = renumber(root, table.assigned(read_accounts(root)))

    assert changed == 5
    assert read_accounts(root) == accounts(
        {"root": 0, "sshd": 101, "bus": 104}, {"root": 0, "nogroup": 65534, "_ssh": 107, "bus": 105}
    )
    assert "bus:x:104:105::/:" in (root / "etc/passwd").read_text()
    found = {name: (root / name).lstat() for name in ("agent", "helper", "a", "b", "link")}
    assert {name: (status.st_uid, status.st_gid) for name, status in found.items()} == {
        "agent": (0, 107),
        "helper": (0, 105),
        "a": (101, 0),
        "b": (104, 0),
        "link": (101, 105),
    }
    assert stat.S_IMODE(found["agent"].st_mode) == 0o2755
    assert stat.S_IMODE(found["helper"].st_mode) == 0o4754


def test_nothing_is_written_if_all_ids_are_right(root: Path) -> None:
    before = (root / "etc/passwd").stat()
    assert renumber(root, IdTable().assigned(read_accounts(root))) == 0
    assert (root / "etc/passwd").stat().st_mtime_ns == before.st_mtime_ns


def test_two_names_of_one_id_cannot_be_parted(root: Path) -> None:
    with (root / "etc/passwd").open("a") as stream:
        stream.write("toor:x:104:0::/:\n")
    with pytest.raises(SourceError, match="share the id 104"):
        renumber(root, IdTable(accounts({"toor": 200})).assigned(read_accounts(root)))


@pytest.mark.parametrize("line", ["sshd", "sshd:x:y:1::/:", "sshd:x:1:y::/:"])
def test_a_line_that_is_no_user_is_an_error(root: Path, line: str) -> None:
    (root / "etc/passwd").write_text(line + "\n")
    with pytest.raises(SourceError, match="no user"):
        read_accounts(root)
