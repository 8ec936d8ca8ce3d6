"""Each rule of a stateless version, with a tree that violates it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mixer.composition import ComposedBundle, Composition
from mixer.lint import RULES, Finding, lint

PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:\n"
GROUP = "root:x:0:\nweb:x:102:\n"


class Version:
    """A composed version without findings: os-core, and web that includes it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lists: dict[str, set[str]] = {"os-core": set(), "web": set()}
        for name in ("etc", "var", "tmp", "usr/bin"):
            (root / name).mkdir(parents=True)
            self.lists["os-core"].add(f"/{name}")
        (root / "tmp").chmod(0o1777)
        self.link("/bin", "usr/bin")
        self.link("/usr/local", "../var/usrlocal")
        self.file("/usr/share/factory/etc/passwd", PASSWD)
        self.file("/usr/share/factory/etc/group", GROUP)

    def file(self, path: str, text: str = "", *, mode: int = 0o644, bundle: str = "os-core") -> None:
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        self.lists[bundle].add(path)

    def directory(self, path: str, mode: int = 0o755) -> None:
        (self.root / path[1:]).mkdir(parents=True)
        (self.root / path[1:]).chmod(mode)
        self.lists["os-core"].add(path)

    def link(self, path: str, target: str) -> None:
        (self.root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path[1:]).symlink_to(target)
        self.lists["os-core"].add(path)

    def findings(self, *setuid: str) -> list[Finding]:
        bundles = {
            name: ComposedBundle(
                name, includes=("os-core",) if name == "web" else (), files=dict.fromkeys(sorted(paths), False)
            )
            for name, paths in self.lists.items()
        }
        return lint(Composition(10, self.root, bundles), setuid)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return Version(tmp_path / "root")


KEY = "# a key\n-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"
TMPFILES = "/usr/lib/tmpfiles.d/a.conf"
SYSUSERS = "/usr/lib/sysusers.d/a.conf"

VIOLATIONS: list[tuple[str, str, Callable[[Version], None]]] = [
    ("outside-usr", "/etc/hosts", lambda v: v.file("/etc/hosts")),
    ("outside-usr", "/opt/app/tool", lambda v: v.file("/opt/app/tool")),
    ("outside-usr", "/var/lib/x", lambda v: v.directory("/var/lib/x")),
    ("outside-usr", "/data", lambda v: v.directory("/data")),
    ("outside-usr", "/srv", lambda v: v.link("/srv", "usr/srv")),
    ("forbidden-file", "/etc/machine-id", lambda v: v.file("/etc/machine-id")),
    ("forbidden-file", "/usr/share/factory/etc/hostname", lambda v: v.file("/usr/share/factory/etc/hostname")),
    (
        "forbidden-file",
        "/usr/share/factory/etc/ssh/ssh_host_rsa_key",
        lambda v: v.file("/usr/share/factory/etc/ssh/ssh_host_rsa_key", KEY),
    ),
    ("forbidden-file", "/etc/resolv.conf", lambda v: v.link("/etc/resolv.conf", "/run/x")),
    ("forbidden-file", "/var/lib/dpkg/status", lambda v: v.file("/var/lib/dpkg/status")),
    ("private-key", "/usr/share/factory/etc/ssl/x", lambda v: v.file("/usr/share/factory/etc/ssl/x", KEY)),
    ("private-key", "/usr/share/app/server.pem", lambda v: v.file("/usr/share/app/server.pem", KEY)),
    (
        "private-key",
        "/usr/share/app/server.key",
        lambda v: v.file("/usr/share/app/server.key", '{"key": "-----BEGIN PRIVATE KEY-----\\nx"}'),
    ),
    ("usr-local", "/usr/local/bin/x", lambda v: (v.root / "usr/local").unlink() or v.file("/usr/local/bin/x")),
    ("setuid", "/usr/bin/x", lambda v: v.file("/usr/bin/x", mode=0o4755)),
    ("setuid", "/usr/bin/x", lambda v: v.file("/usr/bin/x", mode=0o2755)),
    ("world-writable", "/usr/share/x", lambda v: v.file("/usr/share/x", mode=0o646)),
    ("world-writable", "/usr/share/x", lambda v: v.directory("/usr/share/x", 0o777)),
    ("link-outside", "/usr/bin/x", lambda v: v.link("/usr/bin/x", "/opt/x")),
    ("link-outside", "/usr/bin/x", lambda v: v.link("/usr/bin/x", "/dev/shm")),
    ("link-outside", "/usr/bin/x", lambda v: v.link("/usr/bin/x", "../../home/x")),
    ("link-outside", "/usr/bin/x", lambda v: v.link("/usr/bin/x", "/libexec/x")),
    (
        "link-outside",
        "/usr/share/factory/etc/x",  # seen as /etc/x
        lambda v: v.link("/usr/share/factory/etc/x", "../home/x"),
    ),
    ("unknown-user", TMPFILES, lambda v: v.file(TMPFILES, "d /var/x 0755 ghost root -\n")),
    ("unknown-user", TMPFILES, lambda v: v.file(TMPFILES, "d /var/x 0755 root 4711 -\n")),
    ("unknown-user", TMPFILES, lambda v: v.file(TMPFILES, f"d /var/x 0755 root {'7' * 5000} -\n")),
    ("unknown-user", SYSUSERS, lambda v: v.file(SYSUSERS, "m web ghosts\n")),
    ("unknown-user", SYSUSERS, lambda v: v.file(SYSUSERS, "u new 200:ghosts\n")),
    ("id-conflict", SYSUSERS, lambda v: v.file(SYSUSERS, "u web 103\n")),
    ("id-conflict", SYSUSERS, lambda v: v.file(SYSUSERS, "g web 101\n")),
]


@pytest.mark.parametrize(
    ("rule", "path", "violate"), VIOLATIONS, ids=[f"{rule} {path}" for rule, path, _ in VIOLATIONS]
)
def test_a_violation_is_found(version: Version, rule: str, path: str, violate: Callable[[Version], None]) -> None:
    violate(version)
    assert [(found.bundle, found.path, found.rule) for found in version.findings()] == [("os-core", path, rule)]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_an_owner_that_nobody_knows_is_found(version: Version) -> None:
    version.file("/usr/bin/x")
    os.chown(version.root / "usr/bin/x", 101, 4711)
    assert version.findings() == [Finding("os-core", "/usr/bin/x", "unknown-owner", "group 4711")]


def test_every_rule_has_a_violation_here() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} | {"unknown-owner"} == RULES.keys()


@pytest.mark.parametrize(
    "allow",
    [
        lambda v: v.link("/usr/lib/systemd/system/a.service", "/dev/null"),
        lambda v: v.link("/usr/lib/x", "/etc/x"),
        lambda v: v.link("/usr/sbin/ip", "/bin/ip"),
        lambda v: v.link("/usr/share/x", "../../var/x"),
        lambda v: v.link("/usr/share/factory/etc/mtab", "../proc/self/mounts"),
        lambda v: v.file("/usr/bin/sudo", mode=0o4755),
        lambda v: v.file("/usr/bin/mine", mode=0o4755),
        lambda v: v.directory("/usr/share/x", 0o1777),
        lambda v: v.directory("/usr/share/x", 0o2755),
        lambda v: v.file("/boot/vmlinuz-1"),
        lambda v: v.file("/usr/share/doc/x", KEY),
        lambda v: v.file("/usr/share/app/chain.pem", "-----BEGIN CERTIFICATE-----\n"),
        lambda v: v.file(TMPFILES, "d /var/x 0755 :web 102 -\nz /dev/x 0660 - - -\nd /run/u/%U 0700 %U %G\n"),
        lambda v: v.file(SYSUSERS, "u web 101:102\ng web 102\nu new -\nm new web\nu other 300:web\n"),
        lambda v: v.lists["os-core"].add("/etc/not-there"),
        lambda v: v.file("/usr/bin/sh") or v.lists["os-core"].add("/bin/sh"),
    ],
)
def test_what_a_stateless_system_may_have_is_no_violation(version: Version, allow: Callable[[Version], None]) -> None:
    allow(version)
    assert version.findings("/usr/bin/mine") == []


def test_users_that_fragments_make_are_known(version: Version) -> None:
    version.file(SYSUSERS, "u new -\n", bundle="web")
    version.file(TMPFILES, "d /var/x 0755 new new -\n")
    assert version.findings() == []


def test_a_path_of_several_bundles_is_told_for_the_one_that_the_others_include(version: Version) -> None:
    version.file("/etc/a")
    version.file("/etc/b", bundle="web")
    version.lists["web"].add("/etc/a")
    assert [(found.bundle, found.path) for found in version.findings()] == [("os-core", "/etc/a"), ("web", "/etc/b")]


def test_a_root_whose_users_are_in_etc_is_read_from_there(tmp_path: Path) -> None:
    for name, text in (("passwd", PASSWD), ("group", GROUP)):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text(text)
    (tmp_path / "x.conf").write_text("")
    place = tmp_path / TMPFILES[1:]
    place.parent.mkdir(parents=True)
    place.write_text("d /var/x 0755 web web -\n")
    assert lint(Composition(10, tmp_path, {"os-core": ComposedBundle("os-core", files={TMPFILES: False})})) == []


def test_users_in_the_root_of_a_bundle_are_known(tmp_path: Path) -> None:
    (tmp_path / "full/etc").mkdir(parents=True)
    own = tmp_path / "os-core/etc"
    own.mkdir(parents=True)
    (own / "passwd").write_text(PASSWD)
    (own / "group").write_text(GROUP)
    paths = ("/etc/passwd", "/etc/group")
    bundles = {"os-core": ComposedBundle("os-core", files=dict.fromkeys(paths, False))}
    overlay = {path: f"{tmp_path}/os-core{path}" for path in paths}
    findings = lint(Composition(10, tmp_path / "full", bundles, overlay))
    assert [(found.path, found.rule) for found in findings] == [(path, "outside-usr") for path in sorted(paths)]


def test_nothing_outside_of_the_root_is_looked_at(version: Version, tmp_path: Path) -> None:
    version.file("/usr/share/x.key", KEY)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/y.key").write_text(KEY)
    version.link("/usr/share/outside", str(tmp_path / "outside"))
    version.lists["os-core"].add("/usr/share/outside/y.key")
    assert [(found.path, found.rule) for found in version.findings()] == [
        ("/usr/share/outside", "link-outside"),
        ("/usr/share/x.key", "private-key"),
    ]
