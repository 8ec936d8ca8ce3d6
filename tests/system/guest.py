"""A virtual machine with the shipped mix, and a root shell on its console."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.bootmix import BootMix
from tests.system.machine import Disk, Machine


class Guest(Machine):
    """A machine with a root shell on its console."""

    def __init__(self, disk: Disk, directory: Path, mix: BootMix) -> None:
        super().__init__(disk, directory)
        self.mix = mix

    def start(self, **how: object) -> None:
        self.boot(**how)  # type: ignore[arg-type]
        self.login()

    def restart(self, **how: object) -> None:
        self.reboot(**how)
        self.login()

    def swupd(self, command: str, *, expect: int = 0) -> str:
        return self.command(f"swupd {command}", expect=expect)

    def online(self, command: str, *, expect: int = 0) -> str:
        """A command that needs the server."""
        return self.swupd(f"{command} --url {self.mix.url} --allow-insecure-http --no-progress", expect=expect)

    def blessed(self) -> None:
        """Wait until this boot counts as a good one."""
        self.command("for i in $(seq 300); do systemctl is-active -q swupd-boot-complete && break; sleep 1; done")
        self.command("systemctl is-active swupd-boot-complete")

    def version(self) -> str:
        return self.command("sed -n s/^VERSION_ID=//p /usr/lib/os-release").strip()

    def exists(self, path: str) -> bool:
        return self.run(f"test -e {path}")[1] == 0

    def down(self) -> None:
        """Let it shut down for a reboot."""
        self.type("systemctl reboot")
        self.await_end()

    def off(self) -> None:
        """Shut it down in order."""
        self.type("systemctl poweroff")
        self.await_end()

    def deployment(self) -> str:
        return re.findall(r"subvol=/@/([0-9.]+)", self.command("grep ' / ' /proc/self/mounts"))[0]
