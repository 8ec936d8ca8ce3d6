"""The user's layer of /etc against the factory: kinds, bases and conflicts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import UsageError
from swupd.fs import Directory
from swupd.nextboot import etcoverlay
from swupd.nextboot.etcoverlay import Layers, conflicts, find_layers, is_machine_made, note_bases, read_bases
from tests.unit.swupd.nextboot.overlayroot import OverlayRoot, Silent, overlay_root

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("no_sync")]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayRoot]:
    with overlay_root(tmp_path) as root:
        yield root


def note(machine: OverlayRoot) -> dict[str, str]:
    return note_bases(machine.layers, Silent())


def update(machine: OverlayRoot, **files: str | None) -> None:
    """Boot a version whose factory has other files; `_` stands for a slash."""
    machine.shut_down()
    for name, content in files.items():
        path = machine.factory / name.replace("_", "/")
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    machine.boot()


def new_conflicts(machine: OverlayRoot, **files: str | None) -> dict[str, str]:
    """What an update to a version with other factory files tells; that version is not booted."""
    bases = note(machine)
    new = machine.root / "new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(machine.factory, new, symlinks=True)
    shutil.copystat(machine.factory, new)
    os.chown(new / "private", 0, 12)
    for name, content in files.items():
        path = new / name.replace("_", "/")
        path.write_text(content) if content is not None else path.unlink()
    with Directory.open(machine.upper) as upper, Directory.open(machine.factory) as old, Directory.open(new) as theirs:
        found = conflicts(upper, old, theirs, bases, etcoverlay.read_queue(machine.state / "etc"))
    return {difference.path: difference.kind.value for difference in found}


def test_a_directory_that_was_only_copied_up_is_no_difference(machine: OverlayRoot) -> None:
    (machine.etc / "d/sub/new").write_text("x")
    (machine.etc / "d/sub/new").unlink()
    assert os.listdir(machine.upper) == ["d"]
    assert machine.changes() == {}


def test_what_differs_as_a_whole_is_one_difference(machine: OverlayRoot) -> None:
    shutil.rmtree(machine.etc / "d")
    (machine.etc / "new/deep").mkdir(parents=True)
    (machine.etc / "new/deep/file").touch()
    assert machine.changes() == {"d": "deleted", "new": "added"}


def test_a_directory_that_was_made_anew_as_it_was_is_a_copy(machine: OverlayRoot) -> None:
    shutil.copytree(machine.etc / "d", machine.root / "saved")
    shutil.rmtree(machine.etc / "d")
    shutil.move(machine.root / "saved", machine.etc / "d")
    assert machine.changes() == {"d": "same"}


def test_the_modes_of_etc_itself_count(machine: OverlayRoot) -> None:
    machine.etc.chmod(0o700)
    assert machine.changes() == {"": "mode"}


def test_times_do_not_count(machine: OverlayRoot) -> None:
    os.utime(machine.etc / "hosts", (1, 1))
    assert machine.changes() == {"hosts": "same"}


def test_attributes_count_and_what_the_overlay_notes_does_not(machine: OverlayRoot) -> None:
    os.setxattr(machine.etc / "hosts", "trusted.mine", b"1")
    os.utime(machine.etc / "networks")
    assert machine.changes() == {"hosts": "mode", "networks": "same"}
    assert "trusted.overlay.origin" in os.listxattr(machine.upper / "networks")


# -- bases and conflicts


def test_a_conflict_is_a_change_whose_factory_file_is_another_one_by_now(machine: OverlayRoot) -> None:
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "networks").unlink()
    (machine.etc / "issue").write_text("mine")
    (machine.etc / "passwd").chmod(0o600)
    note(machine)
    update(machine, hosts="new", networks="new", issue="new", passwd="new")
    note(machine)
    assert machine.changes() == {"hosts": "changed!", "issue": "changed!", "networks": "deleted!", "passwd": "changed!"}


def test_what_the_factory_has_no_more_is_a_conflict_of_a_change_but_not_of_a_deletion(machine: OverlayRoot) -> None:
    (machine.etc / "hosts").write_text("mine")
    (machine.etc / "networks").unlink()
    note(machine)
    update(machine, hosts=None, networks=None)
    assert machine.changes() == {"hosts": "added!", "networks": "stale"}


def test_a_change_in_a_directory_that_is_hidden_is_a_conflict(machine: OverlayRoot) -> None:
    shutil.rmtree(machine.etc / "d")
    note(machine)
    update(machine, hosts="new")
    assert machine.changes() == {"d": "deleted"}
    update(machine, d_sub_new="new")
    assert machine.changes() == {"d": "deleted!"}


def test_going_back_to_an_old_version_ends_the_conflict(machine: OverlayRoot) -> None:
    (machine.etc / "hosts").write_text("mine")
    old = (machine.factory / "hosts").read_text()
    note(machine)
    update(machine, hosts="new")
    note(machine)
    update(machine, hosts=old)
    assert machine.changes() == {"hosts": "changed"}


def test_a_change_that_the_factory_has_taken_over_is_no_conflict(machine: OverlayRoot) -> None:
    (machine.etc / "hosts").write_text("mine")
    note(machine)
    update(machine, hosts="mine")
    assert machine.changes() == {"hosts": "same"}


def test_what_is_gone_is_forgotten(machine: OverlayRoot) -> None:
    (machine.etc / "mine").write_text("mine")
    assert list(note(machine)) == ["mine"]
    (machine.etc / "mine").unlink()
    assert note(machine) == {}


def test_an_update_tells_what_it_brings_that_the_user_does_not_get(machine: OverlayRoot) -> None:
    for name in ("hosts", "networks", "d/x"):
        (machine.etc / name).write_text("mine")
    (machine.etc / "passwd").unlink()
    told = new_conflicts(machine, hosts="new", passwd=None, link="", d_x="mine", d_new="new")
    assert told == {"hosts": "changed"}


def test_an_update_does_not_tell_of_what_was_reverted(machine: OverlayRoot) -> None:
    from swupd.nextboot.etcrevert import revert

    (machine.etc / "hosts").write_text("mine")
    revert(machine.layers, ["hosts"], Silent())
    assert new_conflicts(machine, hosts="new") == {}


def test_an_update_does_not_tell_of_the_version_that_the_change_was_made_against(machine: OverlayRoot) -> None:
    (machine.etc / "hosts").write_text("mine")
    old = (machine.factory / "hosts").read_text()
    note(machine)
    update(machine, hosts="new")
    assert new_conflicts(machine, hosts=old) == {}
    assert new_conflicts(machine, hosts="newest") == {"hosts": "changed"}


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_a_damaged_record_counts_as_empty(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    state = tmp_path_factory.mktemp("state", numbered=True)
    (state / "base.json").write_bytes(data)
    found = read_bases(state, Silent())
    assert all(isinstance(path, str) and value in ("", value.lower()) for path, value in found.items())
    shutil.rmtree(state)


def test_a_record_that_is_a_link_or_too_large_counts_as_empty(tmp_path: Path) -> None:
    report = Silent()
    (tmp_path / "base.json").symlink_to("other")
    (tmp_path / "other").write_text('{"a": ""}')
    assert read_bases(tmp_path, report) == {}
    (tmp_path / "base.json").unlink()
    (tmp_path / "base.json").write_text('{"a": ""' + " " * etcoverlay.RECORD_LIMIT + "}")
    assert read_bases(tmp_path, report) == {}
    assert all("is damaged and counts as empty" in line for line in report.lines)
    assert len(report.lines) == 2


def test_the_record_is_private(machine: OverlayRoot) -> None:
    (machine.etc / "mine").write_text("mine")
    note(machine)
    assert (machine.state / "etc/base.json").stat().st_mode & 0o777 == 0o600


# -- where the layers are


def test_a_root_whose_etc_is_no_overlay_has_one_layer(tmp_path: Path) -> None:
    with overlay_root(tmp_path, booted=False) as root:
        assert find_layers(root.root) == Layers(root.root, is_overlay=False)
        assert note_bases(root.layers, Silent()) == {}


def test_an_overlay_that_is_not_ours_is_refused(machine: OverlayRoot) -> None:
    machine.upper.rename(machine.state / "elsewhere")
    try:
        with pytest.raises(UsageError, match="is an overlay, but the layer of its changes is not"):
            find_layers(machine.root)
    finally:
        (machine.state / "elsewhere").rename(machine.upper)


@pytest.mark.parametrize("path", ["machine-id", "hostname", "shadow-", ".pwd.lock", "ssh/ssh_host_ed25519_key.pub"])
def test_what_the_machine_makes_for_itself_is_known(path: str) -> None:
    assert is_machine_made(path)


@pytest.mark.parametrize("path", ["hosts", "ssh", "ssh/sshd_config", "d/x-", "ssh/ssh_host_x/y", "resolv.conf", ""])
def test_what_users_make_is_not_taken_for_the_machine_s(path: str) -> None:
    assert not is_machine_made(path)


def test_only_a_link_to_a_resolver_s_file_is_the_machine_s() -> None:
    assert is_machine_made("resolv.conf", is_link=True)
    assert not is_machine_made("hosts", is_link=True)
