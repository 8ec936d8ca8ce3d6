"""`swupd mirror`: looking, setting, going back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swupd.cli import main

VENDOR = "https://vendor.example.org/update"
FILES = ("mirror_versionurl", "mirror_contenturl")


class Admin:
    """Runs `swupd mirror` on a root whose vendor is somewhere else."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = directory / "root"
        self.etc = self.root / "etc/swupd"
        self._state = directory / "state"
        self._capsys = capsys
        (self.root / "usr/lib").mkdir(parents=True)
        (self.root / "usr/lib/os-release").write_text('VERSION_ID=10\nPRETTY_NAME="Example OS"\n')
        defaults = self.root / "usr/share/defaults/swupd"
        defaults.mkdir(parents=True)
        for name, text in (("versionurl", VENDOR), ("contenturl", VENDOR), ("format", "30")):
            (defaults / name).write_text(f"{text}\n")

    def run(self, *arguments: str, status: int = 0, command: str = "mirror") -> list[str]:
        options = ["--path", str(self.root), "--statedir", str(self._state), "--ignore-time", "--nosigcheck"]
        found = main([command, *options, *arguments])
        self.out, self.err = self._capsys.readouterr()
        assert found == status, self.out + self.err
        return self.out.splitlines()

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.etc.iterdir()} if self.etc.exists() else {}


@pytest.fixture
def admin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Admin:
    if os.geteuid() != 0:
        pytest.skip("mirrors are set by root")
    return Admin(tmp_path, capsys)


@pytest.fixture
def mirror(tmp_path: Path) -> Callable[..., str]:
    """Makes a directory that looks like a published tree; returns its URL."""

    def make(name: str, version: int = 20, *, versions: bool = True, content: bool = True) -> str:
        tree = tmp_path / name
        if versions:
            (tree / "version/format30").mkdir(parents=True)
            (tree / "version/format30/latest").write_text(f"{version}\n")
        if content:
            (tree / str(version)).mkdir(parents=True)
            (tree / str(version) / "Manifest.MoM.tar").write_bytes(b"x")
        return f"file://{tree}"

    return make


Mirror = Callable[..., str]


def test_without_options_the_urls_are_shown(admin: Admin) -> None:
    assert admin.run() == [
        "Distribution:      Example OS",
        "Installed version: 10",
        f"Version URL:       {VENDOR}",
        f"Content URL:       {VENDOR}",
    ]


def test_quiet_shows_one_url_if_both_are_the_same_and_else_two(admin: Admin, mirror: Mirror) -> None:
    assert admin.run("--quiet") == [VENDOR]
    assert admin.run("--set", "--versionurl", mirror("m"), "--quiet") == []
    assert admin.run("--quiet") == [mirror("x", versions=False, content=False).replace("/x", "/m"), VENDOR]


def test_a_mirror_is_written_as_the_original_writes_it(admin: Admin, mirror: Mirror) -> None:
    url = mirror("m")
    lines = admin.run("--set", f"{url}/")
    assert admin.files() == dict.fromkeys(FILES, url)
    assert lines[-2:] == [f"Version URL:       {url}", f"Content URL:       {url}"]
    assert {(admin.etc / name).stat().st_mode & 0o777 for name in FILES} == {0o644}


def test_several_mirrors_are_written_one_a_line(admin: Admin, mirror: Mirror) -> None:
    first, second = mirror("a"), mirror("b")
    lines = admin.run("--set", first, second)
    assert admin.files() == dict.fromkeys(FILES, f"{first}\n{second}\n")
    assert lines[-4:] == [
        f"Version URL:       {first}",
        f"                   {second}",
        f"Content URL:       {first}",
        f"                   {second}",
    ]
    assert admin.run(command="info") == lines


def test_versions_and_content_can_have_mirrors_of_their_own(admin: Admin, mirror: Mirror) -> None:
    version, content = mirror("v", content=False), mirror("c", versions=False)
    admin.run("--set", "--versionurl", version, "--contenturl", content)
    assert admin.files() == {"mirror_versionurl": version, "mirror_contenturl": content}
    assert "instead of the configured one" not in admin.err


def test_a_content_mirror_alone_is_compared_with_the_version_mirror_that_is_set(admin: Admin, mirror: Mirror) -> None:
    admin.run("--set", mirror("m"))
    content = mirror("c", versions=False)
    admin.run("--set", "--contenturl", content)
    assert admin.files()["mirror_contenturl"] == content


def test_unset_goes_back_to_the_vendor(admin: Admin, mirror: Mirror) -> None:
    admin.run("--set", mirror("m"))
    assert admin.run("--unset")[-1] == f"Content URL:       {VENDOR}"
    assert admin.files() == {}
    admin.run("--unset", "--quiet")


def test_a_mirror_file_that_cannot_be_read_can_be_replaced_and_removed(admin: Admin, mirror: Mirror) -> None:
    admin.etc.mkdir(parents=True)
    (admin.etc / FILES[0]).write_text("nonsense")
    admin.run(status=15)
    admin.run("--set", mirror("m"))
    assert admin.files()[FILES[0]] == mirror("x", versions=False, content=False).replace("/x", "/m")
    (admin.etc / FILES[1]).write_text("nonsense")
    admin.run("--unset")
    assert admin.files() == {}


def test_a_mirror_that_does_not_answer_changes_nothing(admin: Admin, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/nowhere"
    admin.run("--set", url, status=16)
    assert admin.files() == {}
    assert "--offline" in admin.err
    admin.run("--set", url, "--offline")
    assert admin.files() == dict.fromkeys(FILES, url)


def test_a_mirror_without_the_content_changes_nothing(admin: Admin, mirror: Mirror) -> None:
    admin.run("--set", mirror("m", content=False), status=17)
    assert admin.files() == {}
    assert "version 20" in admin.err


def test_every_mirror_of_a_list_has_to_answer(admin: Admin, mirror: Mirror, tmp_path: Path) -> None:
    admin.run("--set", mirror("m"), f"file://{tmp_path}/nowhere", status=16)
    assert admin.files() == {}


@pytest.mark.parametrize("url", ["example.org", "ftp://example.org", "https://", "https://a/?x=1"])
def test_what_is_no_url_is_refused(admin: Admin, url: str) -> None:
    admin.run("--set", url, status=15)
    assert admin.files() == {}


def test_an_unencrypted_mirror_needs_permission(admin: Admin) -> None:
    admin.run("--set", "http://example.org", "--offline", status=15)
    assert "--allow-insecure-http" in admin.err
    admin.run("--set", "http://example.org", "--offline", "--allow-insecure-http")
    assert admin.files() == dict.fromkeys(FILES, "http://example.org")


@pytest.mark.parametrize("arguments", [["--set"], ["--set", "https://a", "--contenturl", "https://b"]])
def test_a_url_has_to_be_given_exactly_once(admin: Admin, arguments: list[str]) -> None:
    admin.run(*arguments, "--offline", status=15)
    assert admin.files() == {}


def test_set_and_unset_exclude_each_other(admin: Admin) -> None:
    admin.run("--set", "https://a.example.org", "--unset", status=15)


@pytest.mark.parametrize("name", ["etc", "etc/swupd"])
def test_a_link_on_the_way_is_not_followed(admin: Admin, mirror: Mirror, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere/swupd").mkdir(parents=True)
    path = admin.root / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    admin.run("--set", mirror("m"), status=10)
    assert list((tmp_path / "elsewhere").rglob("*")) == [tmp_path / "elsewhere/swupd"]
    admin.run("--unset", status=10)


def test_a_link_in_the_place_of_a_mirror_file_is_replaced_and_not_followed(
    admin: Admin, mirror: Mirror, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("keep")
    admin.etc.mkdir(parents=True)
    (admin.etc / FILES[0]).symlink_to(tmp_path / "victim")
    admin.run("--set", mirror("m"))
    assert (tmp_path / "victim").read_text() == "keep"
    assert not (admin.etc / FILES[0]).is_symlink()


def test_a_system_of_unknown_version_can_have_a_mirror(admin: Admin, mirror: Mirror) -> None:
    shutil.rmtree(admin.root / "usr/lib")
    assert "Installed version: not known" in admin.run("--set", mirror("m"))


def test_the_json_stream_has_the_urls(admin: Admin) -> None:
    messages = [record.get("msg") for record in json.loads("\n".join(admin.run("--json-output")))]
    assert f"Version URL:       {VENDOR}" in messages


def test_changing_needs_root(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    admin.run("--set", "https://a.example.org", "--offline", status=1)
    assert "root" in admin.err
    assert admin.run("--quiet") == [VENDOR]
