"""Definitions and packages become a root and the list of files of every bundle."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixer import composition
from mixer.bundles import BundleSet
from mixer.compose import compose
from mixer.composition import Composition
from mixer.config import Config, TreeSource
from mixer.errors import BuildError, ConfigError, DefinitionError, SourceError, UnknownPackageError
from mixer.lint import lint
from mixer.sources import Package, PackageDatabase, Resolution
from mixer.workspace import Workspace
from swupd.report import Report, TextReport

OS_RELEASE = 'NAME="Debian"\nVERSION_ID="12"\nVERSION="12 (x)"\n'


class Packages:
    """A PackageSource whose packages are given by the test: name -> (requires, files)."""

    def __init__(self) -> None:
        self.packages: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self.base = frozenset({"base"})
        self.unowned: tuple[str, ...] = ("/bin", "/srv")
        self.broken = False
        self.contents: dict[str, str] = {}
        """Path -> content, for files that have another one than their path."""
        self.details: dict[str, dict[str, Any]] = {}
        """Name -> what else is known about a package."""
        self.add("base", "/usr", "/usr/bin", "/usr/bin/sh", "/usr/lib/os-release")

    def add(self, name: str, *files: str, requires: Sequence[str] = ()) -> None:
        self.packages[name] = (tuple(requires), files)

    def resolve(self, packages: Sequence[str], report: Report) -> Resolution:
        if unknown := set(packages) - self.packages.keys():
            raise UnknownPackageError(unknown, hint="the suites are stable")
        return Resolution("k" * 64, (), tuple(packages))

    def install(self, resolution: Resolution, root: Path, report: Report) -> PackageDatabase:
        if self.broken:
            raise SourceError("no space")
        for _, files in self.packages.values():
            for file in files:
                place = root / file[1:]
                place.parent.mkdir(parents=True, exist_ok=True)
                if file in ("/usr", "/usr/bin"):
                    place.mkdir(exist_ok=True)
                else:
                    content = OS_RELEASE if file.endswith("os-release") else self.contents.get(file, file)
                    place.write_bytes(os.fsencode(content))
        (root / "bin").symlink_to("usr/bin")
        (root / "srv").mkdir()
        packages = {
            name: Package(name, "1", files, requires, essential=name in self.base, **self.details.get(name, {}))
            for name, (requires, files) in self.packages.items()
        }
        return PackageDatabase(packages, self.base, self.unowned)


class Mix:
    def __init__(self, path: Path) -> None:
        self.workspace = Workspace(path)
        self.workspace.local_bundles.mkdir(parents=True)
        self.source = Packages()
        self.config = Config(
            TreeSource(path),
            content_url="http://a.example.org",
            version_url="http://b.example.org",
            certificate=path / "c.pem",
        )
        self.define("os-core", "")
        self.define("os-core-update", "include(os-core)\n")
        self.messages: list[str] = []

    def define(self, name: str, text: str) -> None:
        (self.workspace.local_bundles / name).write_text(text)

    def compose(self, version: int = 10, config: Config | None = None) -> Composition:
        names = {path.name for path in self.workspace.local_bundles.iterdir()}
        self.workspace.set_mix_bundles(names)
        bundles = BundleSet.load(self.workspace, self.config)
        report = TextReport(quiet=True)
        report.warning = self.messages.append  # type: ignore[method-assign]
        return compose(
            self.workspace, config or self.config, bundles, self.source, report, version=version, format_number=7
        )

    def read(self, path: str, version: int = 10) -> str:
        return (self.workspace.full(version) / path[1:]).read_text()

    def content(self, name: str, files: Mapping[str, str]) -> Path:
        tree = self.workspace.path / name
        for path, text in files.items():
            place = tree / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return tree


@pytest.fixture
def mix(tmp_path: Path) -> Mix:
    return Mix(tmp_path / "mix")


def test_a_bundle_lists_the_closure_of_its_packages_and_of_its_includes_packages(mix: Mix) -> None:
    mix.source.add("app", "/usr/bin/app", requires=["lib"])
    mix.source.add("lib", "/usr/lib/lib.so")
    mix.source.add("tool", "/usr/bin/tool")
    mix.define("low", "include(os-core)\ntool\n")
    mix.define("high", "include(low)\napp\n")
    high = mix.compose().bundles["high"]
    assert high.packages == ("app", "lib", "tool")
    assert high.includes == ("low",)
    assert {"/usr/bin/app", "/usr/lib/lib.so", "/usr/bin/tool"} <= high.files.keys()
    assert "/usr/bin/sh" not in high.files


def test_the_base_and_what_nobody_owns_belong_to_os_core(mix: Mix) -> None:
    core = mix.compose().bundles["os-core"]
    assert {"/usr/bin/sh", "/bin", "/srv"} <= core.files.keys()
    assert core.packages == ("base",)


def test_all_parent_directories_are_listed(mix: Mix) -> None:
    mix.source.add("deep", "/opt/a/b/c")
    mix.define("deep", "deep\n")
    files = mix.compose().bundles["deep"].files
    assert {"/opt", "/opt/a", "/opt/a/b", "/opt/a/b/c"} <= files.keys()
    assert "/" not in files
    assert "" not in files


def test_programs_are_exported_unless_the_definition_says_otherwise(mix: Mix) -> None:
    mix.source.add("app", "/usr/bin/app", "/usr/bin/helper", "/usr/sbin/daemon", "/usr/share/app")
    mix.define("app", "un-export(/bin/helper)\napp\n")
    files = mix.compose().bundles["app"].files
    assert {path for path, exported in files.items() if exported} == {"/usr/bin/app"}


def test_every_bundle_has_its_tracking_file(mix: Mix) -> None:
    composed = mix.compose()
    for name, bundle in composed.bundles.items():
        assert f"/usr/share/clear/bundles/{name}" in bundle.files
        assert (composed.root / f"usr/share/clear/bundles/{name}").read_bytes() == b""
    assert "/usr/share/clear/bundles/os-core-update" not in composed.bundles["os-core"].files


def test_os_core_tells_the_version(mix: Mix) -> None:
    core = mix.compose(20).bundles["os-core"]
    assert mix.read("/usr/share/clear/version", 20) == "20"
    assert mix.read("/usr/share/clear/versionstamp", 20).isdigit()
    assert mix.read("/usr/lib/os-release", 20) == 'NAME="Debian"\nVERSION_ID=20\nVERSION="12 (x)"\n'
    assert {"/usr/lib/os-release", "/usr/share/clear/version", "/usr/share/clear/versionstamp"} <= core.files.keys()


def test_values_of_the_configuration_go_into_os_release_quoted(mix: Mix) -> None:
    config = Config(mix.config.source, certificate=mix.config.certificate, os_release={"NAME": 'A "$OS"', "ID": "mine"})
    mix.compose(10, config)
    assert mix.read("/usr/lib/os-release") == 'NAME="A \\"\\$OS\\""\nVERSION_ID=10\nVERSION="12 (x)"\nID=mine\n'


def test_a_root_without_os_release_gets_one(mix: Mix) -> None:
    mix.source.add("base", "/usr", "/usr/bin", "/usr/bin/sh")
    mix.compose()
    assert "VERSION_ID=10\n" in mix.read("/usr/lib/os-release")


def test_the_update_bundle_tells_clients_where_updates_are(mix: Mix) -> None:
    mix.config.certificate.write_text("certificate")
    files = mix.compose().bundles["os-core-update"].files
    assert mix.read("/usr/share/defaults/swupd/contenturl") == "http://a.example.org"
    assert mix.read("/usr/share/defaults/swupd/versionurl") == "http://b.example.org"
    assert mix.read("/usr/share/defaults/swupd/format") == "7"
    assert mix.read("/usr/share/clear/update-ca/Swupd_Root.pem") == "certificate"
    assert {"/usr/share/defaults/swupd/format", "/usr/share/clear/update-ca/Swupd_Root.pem"} <= files.keys()


def test_a_mix_without_a_certificate_ships_none(mix: Mix) -> None:
    assert "/usr/share/clear/update-ca" not in mix.compose().bundles["os-core-update"].files


def test_a_version_has_the_time_of_the_environment_and_keeps_it(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    mix.compose()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    mix.compose()
    assert mix.read("/usr/share/clear/versionstamp") == "1600000000"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    mix.compose()
    assert mix.read("/usr/share/clear/versionstamp") == "1600000000"


def test_composing_a_version_again_gives_the_same(mix: Mix, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mix.compose()
    stamp = mix.read("/usr/share/clear/versionstamp")
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    assert mix.compose() == first
    assert mix.read("/usr/share/clear/versionstamp") == stamp


def test_the_composition_can_be_loaded_again(mix: Mix) -> None:
    composed = mix.compose()
    assert composition.load(mix.workspace.image(10), 10) == composed


def test_the_packages_of_a_version_are_told_with_the_bundles_that_have_them_themselves(mix: Mix) -> None:
    mix.source.add("app", "/usr/bin", "/usr/bin/app", requires=["lib"])
    mix.source.add("lib", "/usr/lib/lib.so")
    mix.source.add("stray", "/usr/bin/stray")
    mix.define("low", "include(os-core)\nlib\n")
    mix.define("high", "include(low)\napp\n")
    mix.define("other", "app\n")
    packages = mix.compose().packages
    assert packages is not None
    assert {package.name: package.bundles for package in packages.packages} == {
        "app": ("high", "other"),
        "base": ("os-core",),
        "lib": ("low", "other"),
    }
    assert {package.name: package.files for package in packages.packages} == {
        "app": ("/usr/bin/app",),
        "base": ("/usr/bin/sh", "/usr/lib/os-release"),
        "lib": ("/usr/lib/lib.so",),
    }


def test_what_packages_say_about_themselves_is_kept(mix: Mix) -> None:
    mix.source.add("app", "/usr/bin/app")
    mix.source.details["app"] = {
        "architecture": "amd64",
        "source": "app-src 2",
        "licence": "MIT",
        "homepage": "https://app.example.org",
        "maintainer": "M <m@example.org>",
        "purl": "pkg:deb/debian/app@1",
    }
    mix.define("app", "app\n")
    packages = mix.compose().packages
    owner = packages.owner("/usr/bin/app") if packages else None
    assert owner is not None
    assert (owner.version, owner.architecture, owner.source, owner.licence) == ("1", "amd64", "app-src 2", "MIT")
    assert (owner.homepage, owner.supplier, owner.purl) == (
        "https://app.example.org",
        "M <m@example.org>",
        "pkg:deb/debian/app@1",
    )


def test_an_unknown_package_is_shown_where_it_stands(mix: Mix) -> None:
    mix.define("web", "# [TITLE]: web\ninclude(os-core)\nnginxx\n")
    with pytest.raises(DefinitionError, match=r"local-bundles/web: line 3: unknown package nginxx") as caught:
        mix.compose()
    assert caught.value.hint == "the suites are stable"


def test_a_failed_installation_leaves_a_version_that_cannot_be_loaded(mix: Mix) -> None:
    mix.compose()
    mix.source.broken = True
    with pytest.raises(SourceError):
        mix.compose()
    with pytest.raises(BuildError):
        composition.load(mix.workspace.image(10), 10)
    mix.source.broken = False
    mix.compose()


def test_a_package_in_no_bundle_is_named(mix: Mix) -> None:
    mix.source.add("stray", "/usr/bin/stray")
    mix.compose()
    assert len(mix.messages) == 1
    assert "no bundle has the package stray" in mix.messages[0]


def test_a_name_that_no_manifest_can_express_is_an_error(mix: Mix) -> None:
    mix.source.add("odd", "/usr/share/a\nb")
    mix.define("odd", "odd\n")
    with pytest.raises(BuildError, match="control character"):
        mix.compose()
    assert not mix.workspace.full(10).exists()
    assert not (mix.workspace.image(10) / "full.new").exists()


def test_names_with_a_backslash_and_such_that_are_no_text_ship(mix: Mix) -> None:
    names = ["/usr/share/system\\x2d.slice", "/usr/share/odd\udcff"]
    mix.source.add("odd", *names)
    mix.define("odd", "odd\n")
    assert set(names) <= mix.compose().bundles["odd"].files.keys()


# -- content() -----------------------------------------------------------------------------------------------------


def test_a_content_tree_becomes_part_of_its_bundle(mix: Mix) -> None:
    tree = mix.content("files", {"/usr/share/mine/a": "a", "/usr/bin/run": "run"})
    (tree / "usr/share/mine/link").symlink_to("a")
    (tree / "usr/bin/run").chmod(0o755)
    mix.define("mine", "content(files)\n")
    composed = mix.compose()
    files = composed.bundles["mine"].files
    assert files["/usr/bin/run"] is True
    assert {"/usr/share/mine", "/usr/share/mine/a", "/usr/share/mine/link"} <= files.keys()
    assert (composed.root / "usr/bin/run").stat().st_mode & 0o7777 == 0o755
    assert os.readlink(composed.root / "usr/share/mine/link") == "a"


def test_a_directory_in_a_content_tree_may_be_a_link_in_the_root(mix: Mix) -> None:
    mix.content("files", {"/bin/run": "run"})
    mix.define("mine", "content(files)\n")
    composed = mix.compose()
    assert "/usr/bin/run" in composed.bundles["mine"].files
    assert "/bin/run" not in composed.bundles["mine"].files
    assert (composed.root / "bin").is_symlink()


def test_the_same_file_in_a_package_and_a_content_tree_is_fine(mix: Mix) -> None:
    mix.content("files", {"/usr/bin/sh": "/usr/bin/sh"})
    mix.define("mine", "content(files)\n")
    assert "/usr/bin/sh" in mix.compose().bundles["mine"].files


def test_a_file_that_differs_from_a_packages_is_an_error_that_names_both(mix: Mix) -> None:
    mix.content("files", {"/usr/bin/sh": "mine"})
    mix.define("mine", "include(os-core)\ncontent(files)\n")
    expected = (
        r"mine: line 2: /usr/bin/sh of content\(files\) of the bundle mine is not what the package base has there$"
    )
    with pytest.raises(DefinitionError, match=expected):
        mix.compose()


def test_two_content_trees_that_contradict_each_other_are_an_error_that_names_both(mix: Mix) -> None:
    for name in ("one", "two"):
        mix.content(name, {"/opt/file": name})
        mix.define(name, f"content({name})\n")
    expected = r"/opt/file of content\(two\) of the bundle two is not what the bundle one has"
    with pytest.raises(DefinitionError, match=expected):
        mix.compose()


def test_a_directory_with_another_mode_is_an_error_that_shows_the_modes(mix: Mix) -> None:
    (mix.content("files", {"/usr/bin/run": ""}) / "usr/bin").chmod(0o700)
    mix.define("mine", "content(files)\n")
    with pytest.raises(DefinitionError, match=r"drwx------ .* instead of drwxr-xr-x"):
        mix.compose()


def test_a_fifo_in_a_content_tree_is_an_error(mix: Mix) -> None:
    os.mkfifo(mix.content("files", {"/opt/x": ""}) / "opt/fifo")
    mix.define("mine", "content(files)\n")
    with pytest.raises(DefinitionError, match=r"/opt/fifo of .* is neither a file nor a directory nor a link"):
        mix.compose()


def test_links_in_a_content_tree_never_lead_the_builder_out_of_the_root(mix: Mix, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    first = mix.content("one", {})
    first.mkdir()
    (first / "opt").symlink_to(outside)
    mix.content("two", {"/opt/file": "x"})
    mix.define("one", "content(one)\n")
    mix.define("two", "include(one)\ncontent(two)\n")
    with pytest.raises((DefinitionError, BuildError)):
        mix.compose()
    assert list(outside.iterdir()) == []


def test_a_leftover_of_a_killed_build_does_not_disturb(mix: Mix) -> None:
    left = mix.workspace.image(10) / "full.new"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    composed = mix.compose()
    assert not (composed.root / "half").exists()
    shutil.rmtree(composed.root)


@pytest.fixture
def stateless(mix: Mix) -> Config:
    """A configuration for a stateless system, of packages that have users and state."""
    mix.source.add("passwd", "/etc/passwd", "/etc/group", "/etc/hosts", "/var/lib/app")
    mix.source.contents = {
        "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "/etc/group": "root:x:0:\n",
    }
    mix.define("os-core", "passwd\n")
    return dataclasses.replace(mix.config, stateless="convert")


def test_a_stateless_mix_is_converted_with_all_that_we_add(mix: Mix, stateless: Config) -> None:
    core = mix.compose(config=stateless).bundles["os-core"].files
    assert {"/usr/share/factory/etc/hosts", "/usr/lib/sysusers.d/00-mix.conf", "/usr/lib/swupd/init"} <= core.keys()
    assert [path for path in core if path.startswith(("/etc/", "/var/"))] == []
    assert mix.read("/usr/share/factory/etc/hosts") == "/etc/hosts"


def test_a_converted_file_still_belongs_to_its_package(mix: Mix, stateless: Config) -> None:
    mix.source.add("app", "/etc/app.conf", "/etc/machine-id", "/etc/pam.d/app", "/var/lib/own/state")
    mix.define("app", "app\n")
    packages = mix.compose(config=stateless).packages
    assert packages is not None
    assert [package.files for package in packages.packages if package.name == "app"] == [
        ("/usr/lib/pam.d/app", "/usr/share/factory/etc/app.conf", "/usr/share/factory/var/lib/own/state")
    ]


def test_a_stateless_mix_has_no_findings(mix: Mix, stateless: Config) -> None:
    assert lint(mix.compose(config=stateless)) == []


def test_a_root_password_that_is_none_is_refused_before_packages_are_installed(mix: Mix, stateless: Config) -> None:
    mix.source.broken = True
    config = dataclasses.replace(stateless, root_password=mix.workspace.path / "hash")
    with pytest.raises(ConfigError, match="root_password cannot be read"):
        mix.compose(config=config)


def test_etc_stays_in_a_mix_that_is_not_stateless(mix: Mix, stateless: Config) -> None:
    files = mix.compose().bundles["os-core"].files
    assert "/etc/hosts" in files
    assert not [path for path in files if "factory" in path]
