"""Enabled units move to /usr."""

from __future__ import annotations

from typing import Any

import pytest

ETC = "/etc/systemd/system"
USR = "/usr/lib/systemd/system"
FACTORY = "/usr/share/factory/etc/systemd/system"


def target(system: Any, path: str) -> str:
    return str(system.place(path).readlink())


def test_an_enabled_unit_is_wanted_in_usr(system: Any) -> None:
    system.link("/lib", "usr/lib")
    system.file(f"{USR}/ssh.service", bundle="web")
    system.link(f"{ETC}/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service", bundle="web")
    files = system.convert()["web"].files
    path = f"{USR}/multi-user.target.wants/ssh.service"
    assert target(system, path) == "../ssh.service"
    assert path in files
    assert not system.place(f"{FACTORY}/multi-user.target.wants").exists()


def test_an_instance_is_wanted_by_the_link_to_its_template(system: Any) -> None:
    system.file(f"{USR}/getty@.service")
    system.link(f"{ETC}/getty.target.wants/getty@tty1.service", f"{USR}/getty@.service")
    system.convert()
    assert target(system, f"{USR}/getty.target.wants/getty@tty1.service") == "../getty@.service"


def test_an_alias_is_a_link_beside_its_unit(system: Any) -> None:
    system.link(f"{ETC}/sshd.service", f"{USR}/ssh.service")
    system.convert()
    assert target(system, f"{USR}/sshd.service") == "ssh.service"


def test_a_link_to_a_unit_that_stays_in_etc_keeps_its_absolute_name(system: Any) -> None:
    system.file(f"{ETC}/own.service")
    system.link(f"{ETC}/multi-user.target.requires/own.service", "../own.service")
    system.convert()
    assert target(system, f"{USR}/multi-user.target.requires/own.service") == f"{ETC}/own.service"
    assert system.place(f"{FACTORY}/own.service").exists()


@pytest.mark.parametrize("null", ["/dev/null", "../../../dev/null"])
def test_a_mask_still_overrides_the_unit(system: Any, null: str) -> None:
    system.file(f"{USR}/a.service", "unit")
    system.link(f"{ETC}/a.service", null)
    system.link(f"{ETC}/of-another-bundle.service", null)
    system.convert()
    assert system.read(f"{USR}/a.service") == "unit"
    assert target(system, f"{FACTORY}/a.service") == null
    assert target(system, f"{FACTORY}/of-another-bundle.service") == null


def test_an_alias_whose_name_is_taken_stays_an_override(system: Any) -> None:
    system.file(f"{USR}/display-manager.service", "other")
    system.link(f"{ETC}/display-manager.service", f"{USR}/gdm.service")
    system.convert()
    assert system.read(f"{USR}/display-manager.service") == "other"
    assert system.place(f"{FACTORY}/display-manager.service").is_symlink()


def test_a_unit_that_usr_wants_already_is_wanted_once(system: Any) -> None:
    system.link(f"{USR}/timers.target.wants/a.timer", "../a.timer")
    system.link(f"{ETC}/timers.target.wants/a.timer", f"{USR}/a.timer")
    system.convert()
    assert target(system, f"{USR}/timers.target.wants/a.timer") == "../a.timer"
    assert not system.place(f"{FACTORY}/timers.target.wants").exists()


def test_drop_ins_stay_in_the_factory(system: Any) -> None:
    system.file(f"{ETC}/a.service.d/x.conf", "[Service]\n")
    system.convert()
    assert system.read(f"{FACTORY}/a.service.d/x.conf") == "[Service]\n"


def test_units_of_users_are_treated_alike(system: Any) -> None:
    system.link("/etc/systemd/user/default.target.wants/a.service", "/usr/lib/systemd/user/a.service")
    system.convert()
    assert target(system, "/usr/lib/systemd/user/default.target.wants/a.service") == "../a.service"
