"""/etc of packages becomes the factory's."""

from __future__ import annotations

from typing import Any

import pytest

from mixer.stateless.etc import is_never_shipped


def test_a_file_of_etc_is_found_in_the_factory_and_in_the_list(system: Any) -> None:
    system.file("/etc/nginx/nginx.conf", "x", bundle="web", mode=0o640)
    files = system.convert()["web"].files
    place = system.place("/usr/share/factory/etc/nginx/nginx.conf")
    assert place.read_text() == "x"
    assert place.stat().st_mode & 0o7777 == 0o640
    assert {"/usr/share/factory/etc/nginx", "/usr/share/factory/etc/nginx/nginx.conf"} <= files.keys()
    assert not [path for path in files if path.startswith("/etc")]


def test_etc_is_an_empty_directory_afterwards(system: Any) -> None:
    system.file("/etc/a/b")
    assert system.convert()["os-core"].files["/etc"] is False
    assert list(system.place("/etc").iterdir()) == []


def test_what_the_factory_has_already_stays_unless_etc_has_it_too(system: Any) -> None:
    system.file("/usr/share/factory/etc/issue", "factory")
    system.file("/usr/share/factory/etc/motd", "factory")
    system.file("/etc/motd", "etc")
    system.convert()
    assert system.read("/usr/share/factory/etc/issue") == "factory"
    assert system.read("/usr/share/factory/etc/motd") == "etc"


def test_mtab_stays_in_the_factory(system: Any) -> None:
    system.link("/etc/mtab", "../proc/self/mounts")
    system.convert()
    assert str(system.place("/usr/share/factory/etc/mtab").readlink()) == "../proc/self/mounts"


@pytest.mark.parametrize(
    "name",
    [
        ".pwd.lock",
        "hostname",
        "machine-id",
        "nginx/nginx.conf.dpkg-old",
        "passwd-",
        "rc3.d/S01ssh",
        "resolv.conf",
        "ssh/ssh_host_rsa_key.pub",
        "sudoers~",
    ],
)
def test_what_belongs_to_one_machine_never_ships(system: Any, name: str) -> None:
    system.file(f"/etc/{name}", "x")
    files = system.convert()["os-core"].files
    assert not system.place(f"/usr/share/factory/etc/{name}").exists()
    assert f"/usr/share/factory/etc/{name}" not in files


@pytest.mark.parametrize("name", ["hosts", "ssh/sshd_config", "rc.local", "passwd", "host.conf", "hostname.d/x"])
def test_what_looks_like_it_ships(name: str) -> None:
    assert not is_never_shipped(name)


def test_services_of_pam_move_to_usr(system: Any) -> None:
    system.file("/etc/pam.d/sshd", "auth required pam_unix.so\n", bundle="web")
    files = system.convert()["web"].files
    assert system.read("/usr/lib/pam.d/sshd") == "auth required pam_unix.so\n"
    assert "/usr/lib/pam.d/sshd" in files
    assert not system.place("/usr/share/factory/etc/pam.d/sshd").exists()


def test_what_pam_services_include_stays_where_libpam_looks_for_it(system: Any) -> None:
    system.file("/etc/pam.d/sshd", "@include common-auth\n")
    system.file("/etc/pam.d/common-auth", "auth required pam_unix.so\n")
    system.convert()
    assert system.place("/usr/lib/pam.d/sshd").exists()
    assert system.place("/usr/share/factory/etc/pam.d/common-auth").exists()
    assert not system.place("/usr/lib/pam.d/common-auth").exists()


def test_a_pam_service_of_etc_wins_over_one_of_usr(system: Any) -> None:
    system.file("/usr/lib/pam.d/su", "usr")
    system.file("/etc/pam.d/su", "etc")
    system.convert()
    assert system.read("/usr/lib/pam.d/su") == "etc"
