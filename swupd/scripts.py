"""What has to run after files have changed: boot manager, library cache, services (specification, section 5.9).

Rules:

* Nothing here can make a command fail: files are installed by now. What is missing or fails is a warning, with what
  the program printed; a boot manager that fails is never passed over in silence, because the next boot depends on it.
* Programs of the system itself run only if it is the running one ("/"). For another root only its boot manager (which
  is told the root) and, inside a chroot, its ldconfig run.
* They get no input and an empty environment; what they print is passed on with the prefix of the original.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from swupd import process
from swupd.errors import CommandError, UnsafePathError
from swupd.formats.filehash import hash_path
from swupd.formats.manifest import Entry
from swupd.fs import Directory, components
from swupd.report import Report
from swupd.system import runs_systemd

PRE_UPDATE = "/usr/bin/clr_pre_update.sh"
BOOT_MANAGER = "/usr/bin/clr-boot-manager"
SERVICE_RESTART = "/usr/bin/clr-service-restart"
UPDATE_TRIGGERS = "update-triggers.target"

_LDCONFIG = ("/usr/bin/ldconfig", "/usr/sbin/ldconfig", "/sbin/ldconfig")
_SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl")
_DETECT_VIRT = "/usr/bin/systemd-detect-virt"
_CHROOT = (Path("/usr/sbin/chroot"), Path("/usr/bin/chroot"), Path("/bin/chroot"))


class Scripts:
    """The helpers of one root.

    `enabled` is False with --no-scripts, `update_boot` with --no-boot-update. `is_host` says that the root is the
    running system; without it, that is so for "/".
    """

    def __init__(
        self,
        root: Path,
        report: Report,
        *,
        enabled: bool = True,
        update_boot: bool = True,
        is_host: bool | None = None,
    ) -> None:
        self._root = root
        self._base = str(root).rstrip("/")
        self._report = report
        self._enabled = enabled
        self._update_boot = update_boot
        self._is_host = root == Path("/") if is_host is None else is_host

    def before_update(self, target: Mapping[str, Entry]) -> None:
        """Run the pre-update script if it is exactly the one of the target version."""
        entry = target.get(PRE_UPDATE)
        if not self._enabled or entry is None or not entry.is_present or not self._has(PRE_UPDATE):
            return
        try:
            trusted = hash_path(self._base + PRE_UPDATE) == entry.hash
        except OSError as error:
            self._report.warning(f"{PRE_UPDATE} was not run: {error.strerror}")
            return
        if trusted:
            self._run([self._base + PRE_UPDATE, *([] if self._is_host else [self._root])])

    def after_update(self, *, boot: bool, reexec: bool = False, wait: bool = False) -> None:
        """All that follows an installation.

        boot: something changed that the boot manager has to know. reexec: systemd itself changed. wait: return only
        when restarted services are up.
        """
        if not self._enabled:
            return
        if boot and self._update_boot:
            self._run_boot_manager()
        self._refresh_library_cache()
        if self._is_host:
            self._restart_services(reexec=reexec, wait=wait)

    def _run_boot_manager(self) -> None:
        if self._is_host and self._in_container():
            self._report.verbose("in a container: the boot manager is not needed")
        elif not self._has(BOOT_MANAGER):
            self._report.warning(
                f"there is no boot manager ({self._base}{BOOT_MANAGER}): boot entries were not updated"
            )
        else:
            where: list[str | Path] = [] if self._is_host else ["--path", self._root]
            if not self._run([self._base + BOOT_MANAGER, "update", *where]):
                self._report.warning(
                    "the boot manager failed: the next boot may use old files; "
                    "check the space on the boot partition and run it again"
                )

    def _refresh_library_cache(self) -> None:
        ldconfig = next(filter(self._has, _LDCONFIG), None)
        if ldconfig is None:
            self._report.warning(f"there is no ldconfig in {self._root}: the library cache was not refreshed")
        elif self._is_host:
            self._run([self._base + ldconfig])
        else:
            chroot = next(filter(Path.exists, _CHROOT), None)
            if chroot is None:
                self._report.warning("there is no chroot program: the library cache was not refreshed")
            else:
                self._run([chroot, self._root, ldconfig])

    def _restart_services(self, *, reexec: bool, wait: bool) -> None:
        systemctl = next(filter(self._has, _SYSTEMCTL), None)
        if systemctl is None or not runs_systemd(self._root):
            self._report.verbose("systemd does not run here: no services were restarted")
            return
        systemctl = self._base + systemctl
        self._run([systemctl, "daemon-reexec" if reexec else "daemon-reload"])
        if self._has(SERVICE_RESTART):
            self._run([self._base + SERVICE_RESTART])
        self._run([systemctl, "restart", *([] if wait else ["--no-block"]), UPDATE_TRIGGERS])

    def _in_container(self) -> bool:
        if not self._has(_DETECT_VIRT):
            return False
        try:
            return process.run([self._base + _DETECT_VIRT, "-c"], check=False).returncode == 0
        except CommandError:
            return False

    def _has(self, path: str) -> bool:
        """Whether the root has this program: an executable file, or a link to one (that is resolved inside of it)."""
        *parents, base = components(path)
        try:
            with Directory.open(self._root) as root, root.descend("/".join(parents)) as directory:
                status = directory.lstat(base)
        except (OSError, UnsafePathError):
            return False
        if status is not None and stat.S_ISLNK(status.st_mode):
            return self._is_host and os.access(self._base + path, os.X_OK)
        return status is not None and stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)

    def _run(self, argv: Sequence[str | Path]) -> bool:
        """Run a helper; whether it succeeded. If not, the user has been warned."""
        try:
            done = process.run(argv, check=False)
        except CommandError as error:
            self._report.warning(str(error))
            return False
        for line in (done.stdout + done.stderr).decode(errors="replace").splitlines():
            if line.strip():
                self._report.info(f"External command: {line.rstrip()}")
        if done.returncode != 0:
            self._report.warning(f"{argv[0]} failed with status {done.returncode}")
        return done.returncode == 0
