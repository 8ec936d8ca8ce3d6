"""The shipped mix on a real disk, booted, updating itself, falling back: everything runs inside of virtual machines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from tests.system import machine
from tests.system.guest import Guest
from tests.system.machine import Disk

pytestmark = [
    pytest.mark.system,
    pytest.mark.machine,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="file owners are part of an OS: needs root"),
    pytest.mark.skipif(bool(machine.missing_programs()), reason=machine.missing_programs()),
]


def test_it_boots_with_empty_etc_and_var(fresh: Disk, started: Callable[..., Guest]) -> None:
    guest = started(fresh)
    guest.blessed()
    state, _ = guest.run("systemctl is-system-running --wait")
    assert state.strip() == "running", guest.command(
        "systemctl --failed; journalctl -b -p warning --no-pager | tail -40"
    )
    assert "localhost" in guest.command("getent hosts localhost").split()
    assert "org.freedesktop.DBus" in guest.command("busctl list --no-pager")
    certificates = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(guest.command(f"python3 -c '{certificates}'")) > 100
    assert re.fullmatch(r"[0-9a-f]{32}\n", guest.command("cat /etc/machine-id"))
    assert "Read-only file system" in guest.command("touch /usr/bin/x /x", expect=1)
    assert guest.swupd("status --quiet").split()[0] == "10"
    # What the machine made for itself is no change of its user.
    guest.swupd("etc diff")
    assert guest.command("stat -c %a:%U:%G /etc/shadow /var/log/journal /tmp").split() == [
        "640:root:shadow",
        "2755:root:systemd-journal",
        "1777:root:root",
    ]


def test_an_update_keeps_what_is_the_users_until_a_revert_or_a_factory_reset(
    twenty: Disk, started: Callable[..., Guest]
) -> None:
    assert twenty.names() == ["os-20.1.conf", "os-20.conf", "os-10.conf"]
    guest = started(twenty)
    assert (guest.version(), guest.deployment()) == ("20", "20.1")
    assert guest.exists("/usr/bin/vim.tiny")
    assert guest.command("tail -n 1 /usr/share/site/page").strip() == "twenty"
    kept = guest.command("cat /home/ann/diary /var/lib/mine; id -un ann; tail -n 1 /etc/hosts")
    assert kept.split() == ["diary", "mine", "ann", "192.0.2.7", "printer.of.ann"]
    # Of /etc, what is unmodified follows the new version, and the user's stays and is told.
    assert guest.command("cat /etc/site.conf; ls /etc/site.d").split() == ["color", "=", "green", "new"]
    assert re.search(r"M! +/etc/site.conf", guest.swupd("etc diff", expect=1))
    guest.online("diagnose")

    guest.command("rm /etc/issue.net; chmod 600 /etc/issue; rm -r /etc/site.d; mkdir /etc/site.d")
    guest.swupd("etc revert /etc/site.conf /etc/issue.net /etc/issue /etc/site.d")
    look = "cat /etc/site.conf; ls /etc/site.d /etc/issue.net; stat -c %a /etc/issue"
    factory = sorted(["color", "=", "blue", "/etc/issue.net", "/etc/site.d:", "new", "644"])
    assert sorted(guest.command(look).split()) == factory
    identity = guest.command("cat /etc/machine-id")
    guest.restart()
    assert sorted(guest.command(look).split()) == factory
    assert "site.conf" not in guest.command("ls /run/state/etc/upper").split()
    assert guest.command("cat /etc/machine-id") == identity

    guest.swupd("reset --etc --var --assume=yes")
    guest.restart()
    guest.blessed()
    assert guest.command("cat /etc/machine-id") != identity
    assert "printer" not in guest.command("cat /etc/hosts")
    assert not guest.exists("/var/lib/mine")
    assert guest.command("cat /home/ann/diary").strip() == "diary"
    assert guest.command("systemctl is-system-running", expect=None).strip() == "running"
    assert guest.version() == "20"


def test_a_version_that_fails_its_health_check_and_one_without_an_init_are_left_without_help(
    twenty: Disk, started: Callable[..., Guest]
) -> None:
    guest = started(twenty)
    guest.online("update --next-boot --version 30")
    guest.down()
    # 30 boots, fails, and wants to boot again by itself.
    guest.boot(wait=False)
    assert guest.booted == "30"
    guest.await_end()
    guest.boot()
    assert guest.booted == "20.1"
    guest.login()
    guest.blessed()
    assert guest.version() == "20"
    story = guest.swupd("status")
    assert re.search(r"30.*the site is down", story, re.DOTALL)
    # It is not offered again; the next one is.
    assert "--retry" in guest.online("update --next-boot --version 30")
    guest.online("update --next-boot --version 40")
    guest.down()
    for _ in range(2):
        guest.boot(wait=False)
        assert guest.booted == "40"
        guest.await_end()
    guest.boot()
    guest.login()
    guest.blessed()
    assert (guest.booted, guest.version()) == ("20.1", "20")
    assert re.search(r"Failed: +40", guest.swupd("status"))
    assert guest.command("cat /home/ann/diary").strip() == "diary"

    # Going back by hand: unmodified files of /etc follow the old version again.
    guest.swupd("rollback 10")
    guest.restart()
    guest.blessed()
    assert guest.version() == "10"
    assert guest.command("ls /etc/site.d").split() == ["old"]
    assert re.search(r"Set aside: +20.1, 20", guest.swupd("status"))


def test_a_live_update_switches_the_running_system(ten: Disk, started: Callable[..., Guest]) -> None:
    guest = started(ten)
    guest.online("update --version 20")
    assert (guest.version(), guest.deployment()) == ("20", "10")
    assert guest.command("tail -n 1 /usr/share/site/page; ls /etc/site.d").split() == ["twenty", "new"]
    assert guest.command("cat /etc/site.conf").strip() == "color = green"
    guest.command("echo written >> /etc/site.conf; systemctl is-system-running", expect=None)
    guest.restart()
    guest.blessed()
    assert (guest.version(), guest.deployment()) == ("20", "20")
    assert guest.command("cat /etc/site.conf").split() == ["color", "=", "green", "written"]


def test_a_full_boot_partition_a_full_disk_and_a_server_that_goes_change_nothing(
    ten: Disk, started: Callable[..., Guest]
) -> None:
    guest = started(ten)
    guest.blessed()
    # The kernel of both versions is the same: it has to be copied only if it is not there.
    guest.command("mkdir /run/esp && mount /dev/vda1 /run/esp && mv /run/esp/os/initrd-* /run/esp")
    guest.command("cat /dev/zero > /run/esp/fill", expect=1)
    guest.command("umount /run/esp")
    told = guest.online("update --next-boot --version 20", expect=25)
    assert re.search(r"Error: the boot partition has .* free.*\nHint: .*swupd snapshots", told)
    guest.command("mount /dev/vda1 /run/esp && rm /run/esp/fill && mv /run/esp/initrd-* /run/esp/os; umount /run/esp")

    # All that was downloaded before goes, so that something has to be written.
    guest.swupd("clean --all")
    guest.command(
        "fallocate -l $(($(df --output=avail -B1 /var | tail -n 1) * 9 / 10)) /var/fill; cat /dev/zero > /var/fill2",
        expect=1,
    )
    told = guest.online("update --next-boot --version 20", expect=25)
    assert re.search(r"Error: .*\nHint: ", told)
    guest.command("rm /var/fill /var/fill2; sync")

    guest.swupd("clean --all")
    slow = "--limit-rate 20k --max-retries 1 --retry-delay 1"
    url = f"--url {guest.mix.url} --allow-insecure-http --no-progress"
    guest.command(
        f"(swupd update --next-boot --version 20 {url} {slow} > /run/outcome 2>&1; echo $? > /run/status) & true"
    )
    guest.command(
        "until grep -q Downloading /run/outcome; do sleep 0.1; done; ip link set $(ls /sys/class/net | grep -v lo) down"
    )
    guest.command("until [ -e /run/status ]; do sleep 0.1; done")
    assert guest.command("cat /run/status").split() in (["16"], ["17"])
    assert re.search(r"Error: .*\nHint: ", guest.command("cat /run/outcome"))

    assert guest.swupd("status --quiet").split() == ["10"]
    guest.off()
    assert guest.disk.names() == ["os-10.conf"]


def test_the_real_boot_loader_counts_and_the_real_firmware_boots(fresh: Disk, started: Callable[..., Guest]) -> None:
    guest = started(fresh, firmware=True)
    guest.blessed()
    guest.online("update --next-boot --version 20")
    guest.down()
    assert guest.disk.names() == ["os-20+3.conf", "os-10.conf"]
    guest.boot(firmware=True)
    guest.login()
    guest.blessed()
    assert guest.version() == "20"
    guest.off()
    assert guest.disk.names() == ["os-20.conf", "os-10.conf"]
