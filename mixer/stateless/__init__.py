"""A composition becomes a stateless one: the OS in /usr and /boot, while /etc and /var belong to the machine.

`convert` works on a root in which all files of a version are, and on the lists of its bundles. Afterwards

* /etc of packages is in /usr/share/factory/etc, PAM's in /usr/lib/pam.d, enabled units in
  /usr/lib/systemd (etc, units);
* users and groups are in the factory and in one fragment for systemd-sysusers (accounts), and so is the cache of
  libraries (libraries);
* /var, /root and their like are lines for systemd-tmpfiles, bundle by bundle; /usr/local is a link to /var (var);
* EMPTY_DIRECTORIES exist, empty, in os-core: the places where a running system mounts what is its own.

Every file is found again with its content, mode and owner, apart from what belongs to one machine alone
(`etc.NEVER_SHIPPED`). Lists say so: what a bundle had in /etc it has in the factory. What cannot be converted with
sense (programs in /opt, say) stays where it is; `mixer.lint` names it.

Equal compositions are converted equally, byte by byte. Nothing is undone on failure: the root is the caller's draft.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mixer.composition import ComposedBundle
from mixer.stateless import accounts, etc, libraries, units, var
from mixer.stateless.draft import Draft
from mixer.stateless.names import Names
from swupd.formats import layout
from swupd.report import Report, counted

EMPTY_DIRECTORIES = {
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/media": 0o755,
    "/mnt": 0o755,
    "/opt": 0o755,
    "/proc": 0o555,
    "/root": 0o700,
    "/run": 0o755,
    "/srv": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,  # noqa: S108  a name in the root
    "/var": 0o755,
}
"""Path -> mode."""


def convert(
    root: Path, bundles: Mapping[str, ComposedBundle], report: Report, *, root_password: str = ""
) -> tuple[dict[str, ComposedBundle], dict[str, str]]:
    """Convert a root in place; the bundles with their new lists, and where their paths came from (`Draft.origins`).

    `root_password` is a hash as in shadow(5); empty: nobody can log in as root with a password. Raises BuildError and
    SourceError for a root that cannot be converted, OSError for what the system refuses.
    """
    draft = Draft(root, bundles)
    dropped = etc.drop_never_shipped(draft)
    for path in dropped:
        report.verbose(f"{path} is left out, because every machine makes its own")
    libraries.make_cache(draft)
    users, groups = accounts.convert(draft, root_password)
    names = Names.load(root / "etc")
    services = etc.convert_pam(draft)
    enabled = units.convert(draft)
    configuration = etc.convert(draft)
    state = var.convert(draft, names)
    for path, mode in EMPTY_DIRECTORIES.items():
        draft.make_directories(path)
        os.chmod(draft.place(path), mode)
        draft.add_only(layout.OS_CORE, path)
    report.info(
        f"Stateless: {counted(configuration, 'object')} of /etc in the factory, {counted(services, 'PAM service')}, "
        f"{counted(enabled, 'link')} of enabled units, {counted(users, 'user')}, {counted(groups, 'group')}, "
        f"{counted(state, 'line')} of state; {len(dropped)} left out"
    )
    return draft.finished(), draft.origins()
