"""Damage is found, named and put right; what belongs to the administrator is left alone."""

from __future__ import annotations

import os
from typing import Any

import pytest

Client = Any
PublishedTree = Any


@pytest.fixture
def damaged(client: Client) -> Client:
    """A file changed, one missing, one with a wrong mode, one replaced by a directory."""
    (client.root / "usr/bin/edit").write_bytes(b"broken")
    (client.root / "usr/share/editors/same").unlink()
    (client.root / "usr/bin/core").chmod(0o777)
    (client.root / "usr/share/editors/empty").unlink()
    (client.root / "usr/share/editors/empty").mkdir()
    return client


FINDINGS = [
    ("usr/share/editors/same", "missing"),
    ("usr/bin/core", "changed"),
    ("usr/bin/edit", "changed"),
    ("usr/share/editors/empty", "changed"),
]


def test_a_sound_system_is_0(client: Client) -> None:
    result = client.run("diagnose")
    assert result.lines[-1] == "No problems were found"


def test_findings_are_1_and_named(damaged: Client) -> None:
    before = damaged.snapshot()
    result = damaged.run("diagnose", status=1)
    assert f" -> Missing file: {damaged.root}/usr/share/editors/same" in result.lines
    assert f" -> Changed file: {damaged.root}/usr/bin/edit" in result.lines
    assert damaged.snapshot() == before


def test_quiet_findings_are_one_path_per_line(damaged: Client) -> None:
    assert damaged.run("diagnose", "--quiet", status=1).lines == [f"{damaged.root}/{name}" for name, _ in FINDINGS]


def test_a_repair_puts_everything_right(damaged: Client) -> None:
    result = damaged.run("repair", "--quiet")
    assert result.lines == [f"{damaged.root}/{name} -> fixed" for name, _ in FINDINGS]
    damaged.check(10)
    assert "nothing to repair" in damaged.run("repair").out


def test_only_one_path_is_looked_at_on_request(damaged: Client) -> None:
    lines = damaged.run("diagnose", "--file", "/usr/bin/", "--quiet", status=1).lines
    assert lines == [f"{damaged.root}/usr/bin/core", f"{damaged.root}/usr/bin/edit"]
    damaged.run("repair", "--file", "/usr/bin/edit")
    assert len(damaged.run("diagnose", "--quiet", status=1).lines) == 3
    assert "in no manifest" in damaged.run("diagnose", "--file", "/usr/nonsense", status=26).err
    assert damaged.run("diagnose", "--file", "relative", status=15).err


def test_only_some_bundles_are_looked_at_on_request(damaged: Client) -> None:
    lines = damaged.run("diagnose", "--bundles", "os-core", "--quiet", status=1).lines
    assert lines == [f"{damaged.root}/usr/bin/core"]
    assert damaged.run("diagnose", "--bundles", "nonsense", status=3).err
    assert damaged.run("diagnose", "--bundles", "games", status=13).err


def test_extra_files_are_shown_and_removed_on_request_only(client: Client) -> None:
    (client.root / "usr/share/extra").mkdir()
    (client.root / "usr/share/extra/file").touch()
    (client.root / "usr/local").mkdir()
    (client.root / "usr/local/mine").touch()
    client.run("diagnose")
    extra = [f"{client.root}/usr/share/extra/file", f"{client.root}/usr/share/extra/"]
    assert client.run("diagnose", "--picky", "--quiet", status=1).lines == extra
    assert client.run("diagnose", "--extra-files-only", "--quiet", status=1).lines == extra
    assert client.run("diagnose", "--picky", "--picky-tree", "/usr/lib").out
    assert client.run("diagnose", "--picky", "--picky-whitelist", "/usr/share/extra|/usr/local").out
    assert client.run("repair", "--picky", "--quiet").lines == [f"{path} -> deleted" for path in extra]
    assert (client.root / "usr/local/mine").exists()


def test_deleted_files_are_found_and_removed(client: Client) -> None:
    client.run("update")
    gone = client.root / "usr/share/editors/going-away"
    gone.write_text("back again")
    assert client.run("diagnose", "--quiet", status=1).lines == [str(gone)]
    assert client.run("repair", "--quiet").lines == [f"{gone} -> deleted"]
    assert not gone.exists()


def test_what_was_changed_below_etc_is_no_finding_but_what_is_missing_is_created(client: Client) -> None:
    config = client.root / "etc/hosts-example"
    config.write_text("mine\n")
    client.run("diagnose")
    client.run("repair")
    assert config.read_text() == "mine\n"
    config.unlink()
    assert client.run("diagnose", "--quiet", status=1).lines == [str(config)]
    assert client.run("repair", "--quiet").lines == [f"{config} -> fixed"]


def test_a_directory_that_became_a_link_does_not_lead_a_repair_outside(client: Client, tmp_path: Any) -> None:
    outside = tmp_path / "outside"
    (client.root / "usr/share/editors").rename(outside)
    os.symlink(outside, client.root / "usr/share/editors")
    (outside / "same").write_text("outside\n")
    client.run("diagnose", status=1)
    result = client.run("repair")
    assert "-> fixed" in result.out
    assert (outside / "same").read_text() == "outside\n"
    assert not (client.root / "usr/share/editors").is_symlink()
    client.check(10)


def test_one_path_that_cannot_be_put_right_does_not_keep_the_others_from_it(damaged: Client) -> None:
    (damaged.root / "usr/share/editors/empty/mine").write_text("mine\n")
    result = damaged.run("repair", "--quiet", status=35)
    assert f"{damaged.root}/usr/share/editors/empty -> not fixed" in result.lines
    assert f"{damaged.root}/usr/bin/edit -> fixed" in result.lines
    assert (damaged.root / "usr/share/editors/empty/mine").read_text() == "mine\n"


def test_a_repair_to_another_version_wants_to_be_forced(client: Client) -> None:
    client.run("update")
    assert "version 20 is installed" in client.run("repair", "--version", "10", status=15).err
    client.run("repair", "--version", "10", "--picky", "--force")
    client.check(10)
    assert client.run("diagnose", "--picky").out


def test_objects_of_a_repair_that_the_server_does_not_have_are_17(damaged: Client, tree: PublishedTree) -> None:
    tree.remove("10/files/*.tar")
    before = damaged.snapshot()
    assert "404" in damaged.run("repair", status=17).err
    assert damaged.snapshot() == before
