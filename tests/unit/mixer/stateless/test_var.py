"""State becomes lines for systemd-tmpfiles."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mixer.errors import BuildError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
CORE = "/usr/lib/tmpfiles.d/mix-os-core.conf"
WEB = "/usr/lib/tmpfiles.d/mix-web.conf"


def lines(system: Any, path: str) -> list[str]:
    return [line for line in system.read(path).splitlines()[1:] if "usrlocal" not in line]


@needs_root
def test_a_directory_is_made_with_the_names_of_its_owners(system: Any) -> None:
    system.directory("/var/cache/man", mode=0o2755, owner=(6, 12))
    system.convert()
    assert "d /var/cache/man 2755 man man -" in lines(system, CORE)


@needs_root
def test_an_owner_without_a_name_is_named_by_its_id(system: Any) -> None:
    system.directory("/var/x", owner=(4711, 50))
    system.convert()
    assert lines(system, CORE) == ["d /var/x 0755 4711 staff -"]


def test_a_bundle_has_only_lines_for_what_its_includes_lack(system: Any) -> None:
    system.directory("/var/lib")
    system.directory("/var/lib/nginx", bundle="web")
    system.listed["web"].add("/var/lib")
    bundles = system.convert()
    assert lines(system, CORE) == ["d /var/lib 0755 root root -"]
    assert lines(system, WEB) == ["d /var/lib/nginx 0755 root root -"]
    assert WEB in bundles["web"].files
    assert WEB not in bundles["os-core"].files
    assert not [path for path in bundles["web"].files if path.startswith("/var")]


def test_a_link_is_made_again(system: Any) -> None:
    system.link("/var/spool/mail", "../m%il x")
    system.convert()
    assert lines(system, CORE)[-1] == "L /var/spool/mail - - - - ../m%%il x"


def test_a_link_that_no_line_can_express_is_an_error(system: Any) -> None:
    system.link("/var/x", "a\nb")
    with pytest.raises(BuildError, match="/var/x is a link to"):
        system.convert()


def test_an_empty_file_is_made_empty(system: Any) -> None:
    system.file("/var/log/lastlog", "", mode=0o664)
    system.convert()
    assert lines(system, CORE)[-1] == "f /var/log/lastlog 0664 root root -"


def test_a_file_is_copied_from_the_factory(system: Any) -> None:
    system.file("/var/lib/app/db", "x", bundle="web", mode=0o600)
    files = system.convert()["web"].files
    assert lines(system, WEB)[-1] == "C /var/lib/app/db 0600 root root -"
    assert system.read("/usr/share/factory/var/lib/app/db") == "x"
    assert "/usr/share/factory/var/lib/app/db" in files


def test_the_home_of_root_and_other_homes_are_state(system: Any) -> None:
    system.file("/root/.bashrc", "PS1=x")
    system.directory("/root/.ssh", mode=0o700)
    system.directory("/srv/www", bundle="web")
    system.convert()
    assert lines(system, CORE) == ["C /root/.bashrc 0644 root root -", "d /root/.ssh 0700 root root -"]
    assert lines(system, WEB) == ["d /srv/www 0755 root root -"]
    assert system.read("/usr/share/factory/root/.bashrc") == "PS1=x"


def test_what_a_package_makes_by_itself_gets_no_second_line(system: Any) -> None:
    system.file("/usr/lib/tmpfiles.d/var.conf", "d /var/log 0755 - - -\nL /var/run - - - - ../run\nz /var/a 0700\n")
    system.directory("/var/log")
    system.directory("/var/a")
    system.link("/var/run", "/run")
    system.convert()
    assert lines(system, CORE) == ["d /var/a 0755 root root -"]


def test_a_package_of_another_bundle_may_be_absent_and_spares_no_line(system: Any) -> None:
    system.file("/usr/lib/tmpfiles.d/web.conf", "d /var/log 0755 - - -\n", bundle="web")
    system.directory("/var/log")
    system.convert()
    assert lines(system, CORE) == ["d /var/log 0755 root root -"]


def test_usr_local_leads_to_var(system: Any) -> None:
    system.directory("/usr/local/bin")
    system.link("/usr/local/man", "share/man")
    files = system.convert()["os-core"].files
    assert str(system.place("/usr/local").readlink()) == "../var/usrlocal"
    assert "/usr/local" in files
    assert "/usr/local/bin" not in files
    assert system.read(CORE).splitlines()[1:] == [
        "d /var/usrlocal 0755 root root -",
        "d /var/usrlocal/bin 0755 root root -",
        "L /var/usrlocal/man - - - - share/man",
    ]


@pytest.mark.parametrize("path", ["/usr/local/bin/tool", "/opt/app/tool"])
def test_a_program_where_it_would_never_be_updated_stays_for_lint_to_find(system: Any, path: str) -> None:
    system.file(path, "x", bundle="web")
    files = system.convert()["web"].files
    assert path in files
    assert system.read(path) == "x"


def test_opt_with_directories_alone_is_converted(system: Any) -> None:
    system.directory("/opt/app", bundle="web")
    system.convert()
    assert lines(system, WEB) == ["d /opt/app 0755 root root -"]
