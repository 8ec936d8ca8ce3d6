"""Users and groups of a stateless system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixer.errors import BuildError, ConfigError
from mixer.stateless.accounts import read_password

HASH = "$6$abcdefgh$" + "x" * 86
FRAGMENT = "/usr/lib/sysusers.d/00-mix.conf"
FACTORY = "/usr/share/factory/etc"


def test_the_fragment_has_all_groups_and_users_with_their_ids(system: Any) -> None:
    system.convert()
    assert system.read(FRAGMENT).splitlines()[1:] == [
        "g root 0 -",
        "g man 12 -",
        "g staff 50 -",
        "g nogroup 65534 -",
        "u root 0 root /root /bin/bash",
        "u man 6:12 man /var/cache/man /usr/sbin/nologin",
        'u sshd 102:65534 "secure \\"shell\\"" /run/sshd /usr/sbin/nologin',
        "u nobody 65534:65534 nobody /nonexistent /usr/sbin/nologin",
        "m sshd staff",
    ]


def test_fragments_of_packages_are_replaced(system: Any) -> None:
    system.file("/usr/lib/sysusers.d/basic.conf", "u root 0\ng man -\nm sshd staff\n", bundle="web")
    bundles = system.convert()
    assert [path.name for path in system.place("/usr/lib/sysusers.d").iterdir()] == ["00-mix.conf"]
    assert not [path for path in bundles["web"].files if path.endswith("basic.conf")]
    assert FRAGMENT in bundles["os-core"].files


@pytest.mark.parametrize("line", ["u site -", "g site -", "m man staff"])
def test_a_fragment_that_says_more_than_the_lists_stays(system: Any, line: str) -> None:
    system.file("/usr/lib/sysusers.d/site.conf", f"u root 0\n{line}\n", bundle="web")
    assert "/usr/lib/sysusers.d/site.conf" in system.convert()["web"].files


def test_the_lists_belong_to_os_core_alone(system: Any) -> None:
    system.listed["web"].add("/etc/passwd")
    bundles = system.convert()
    assert f"{FACTORY}/passwd" in bundles["os-core"].files
    assert f"{FACTORY}/passwd" not in bundles["web"].files


def test_root_gets_the_password_that_is_given(system: Any) -> None:
    system.convert(HASH)
    assert system.read(f"{FACTORY}/shadow").splitlines() == [
        f"root:{HASH}:19358:0:99999:7:::",
        "man:*:19358:0:99999:7:::",
    ]
    assert system.place(f"{FACTORY}/shadow").stat().st_mode & 0o7777 == 0o640


def test_nobody_can_log_in_as_root_without_a_password(system: Any) -> None:
    system.file("/etc/shadow", "root::19358:0:99999:7:::\n")
    system.convert()
    assert system.read(f"{FACTORY}/shadow").startswith("root:*:")


def test_a_root_without_shadow_has_the_password_in_passwd(system: Any) -> None:
    system.place("/etc/shadow").unlink()
    system.convert()
    assert system.read(f"{FACTORY}/passwd").startswith("root:*:0:0:")


def test_users_of_the_machine_get_ids_that_the_mix_never_gives(system: Any) -> None:
    system.file("/etc/login.defs", "UID_MIN 1000\n#SYS_UID_MIN\t\t  100\n#SYS_UID_MAX 999\nSYS_GID_MIN 100\n")
    system.file("/etc/adduser.conf", "#FIRST_SYSTEM_UID=100\n#LAST_SYSTEM_UID=999\n# FIRST_SYSTEM_GID=x\n")
    system.convert()
    assert system.read(f"{FACTORY}/login.defs").splitlines() == [
        "UID_MIN 1000",
        "SYS_UID_MIN 600",
        "SYS_UID_MAX 999",
        "SYS_GID_MIN 600",
        "SYS_GID_MAX 999",
    ]
    assert system.read(f"{FACTORY}/adduser.conf").splitlines() == [
        "FIRST_SYSTEM_UID=600",
        "LAST_SYSTEM_UID=999",
        "# FIRST_SYSTEM_GID=x",
        "FIRST_SYSTEM_GID=600",
        "LAST_SYSTEM_GID=999",
    ]


def test_a_value_that_stands_twice_or_at_the_end_without_a_line_break_is_set(system: Any) -> None:
    system.file("/etc/login.defs", "#SYS_UID_MIN 100\n SYS_UID_MIN 200\nUMASK 022")
    system.convert()
    assert system.read(f"{FACTORY}/login.defs").splitlines() == [
        "SYS_UID_MIN 600",
        "SYS_UID_MIN 600",
        "UMASK 022",
        "SYS_GID_MIN 600",
        "SYS_UID_MAX 999",
        "SYS_GID_MAX 999",
    ]


def test_a_root_without_users_is_refused(system: Any) -> None:
    system.place("/etc/group").unlink()
    with pytest.raises(BuildError, match="/etc/group"):
        system.convert()


@pytest.mark.parametrize("text", [HASH, f"{HASH}\n", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$" + "x" * 43])
def test_a_hash_is_read_from_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "hash").write_text(text)
    assert read_password(tmp_path / "hash") == text.strip()


@pytest.mark.parametrize("text", ["", "secret\n", f"{HASH}\n{HASH}\n", f"{HASH}:0\n", "$1$abc$" + "x" * 22, "x" * 9999])
def test_a_file_that_holds_no_hash_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hash").write_text(text)
    with pytest.raises(ConfigError, match="is not the hash of a password") as caught:
        read_password(tmp_path / "hash")
    assert "openssl" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_password(tmp_path / "hash")
