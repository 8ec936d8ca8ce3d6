"""The builder.yaml that `mixer init` writes: every key, with what it does and what it is when left out."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

_APT = """\
source:
  # Debian packages, resolved and installed by apt; `mixer build` needs root for it.
  type: apt
  suites: [bookworm]
  # components: [main]
  # Where the suites are. Left out, the apt configuration of this machine tells, with its keys.
  # A plain URI serves every suite that no other mirror names.
  # mirrors:
  #   - https://mirror.example.org/debian
  #   - uri: https://mirror.example.org/debian-security
  #     suites: [bookworm-security]
  # The keys that may sign the archive; left out, those that this machine trusts.
  # keyring: archive-keyring.gpg
  # Left out, the architecture of this machine.
  # architecture: amd64
  # Files that are never installed, as in dpkg's path-exclude.
  # path_excludes: [/usr/share/man/*, /usr/share/doc/*]
  # The table that keeps user and group ids the same in all versions. Lines are only ever added; keep it.
  # ids: ids.txt
"""

_APT_SYSTEM = """\
# The OS owns /usr and /boot alone, /etc and /var belong to the machine. With convert, what packages have elsewhere
# becomes defaults below /usr. With reject, a version that has something elsewhere is refused. With off, and when left
# out, nothing is done about it.
stateless: convert

# The update bundle gets swupd itself, with its libraries and units; false when left out.
updater: true

# A file with the hash of root's password, one line as `openssl passwd -6` prints it. Left out, nobody can log in as
# root with a password. The hash ships: everybody who gets the OS can read it.
# root_password: root-password
"""

_TREE_SYSTEM = """\
# With reject, a root that has something outside of /usr and /boot is refused. With off, and when left out, nothing is
# done about it.
# stateless: reject
"""

_TREE = """\
source:
  # Prepared roots, made by any other tool: in this directory <version>/full, <version>/<bundle>-info and groups.ini.
  type: tree
  path: {path}
"""

_TEXT = """\
# Configuration of this mix. Paths are relative to the workspace. $NAME and ${{NAME}} are replaced from the environment,
# $$ stands for a dollar sign. The version to build, the format and the list of bundles are not here: see
# `mixer versions` and `mixer bundle list`.

# Where content comes from.
{source}
# Directories of bundle definitions beyond local-bundles/, which comes first; earlier ones win.
{bundles}
# The bundle that tells clients the URLs, the format and the certificate. It has to be in the mix.
# update_bundle: os-core-update

# Where clients find the published tree. version_url is the same as content_url when left out.
# content_url: https://update.example.org/mix
# version_url: https://update.example.org/mix

# Where the published tree is put: a directory, or s3://bucket/path, an object store (docs/object-store.md).
# published: update/www

# What versions are signed with; made by the first build if neither file exists. Keep the key secret: clients trust what
# fits the certificate, which ships with the update bundle.
# certificate: Swupd_Root.pem
# key: private.pem

# Values of /usr/lib/os-release instead of the source's own; VERSION_ID is always the version of the mix.
# os_release:
#   NAME: Example OS
#   ID: example-os
#   PRETTY_NAME: Example OS of the reserved names
#   HOME_URL: https://www.example.org/

{system}
# Files that may be setuid or setgid, besides the usual ones such as su and mount; `mixer lint` names others.
# setuid: [/usr/bin/pkexec]

# How many workers a build has; 0 is one for each core.
# workers: 0

# Workers of a Dask cluster compress instead of those of this machine, which still reads and writes everything. They
# need the same version of swupd-mixer[mixer,cluster]. Who can reach the scheduler decides what is in a version: keep it
# in a network of its own, or use tls://.
# engine:
#   dask: tcp://scheduler.example.org:8786
"""


def builder_yaml(source_type: str, tree_path: str, directories: Sequence[str]) -> str:
    """The commented text. `tree_path` counts for the type `tree`; `directories` are those of definitions."""
    is_apt = source_type == "apt"
    source = _APT if is_apt else _TREE.format(path=_scalar(tree_path))
    if directories:
        bundles = "bundles:\n" + "".join(f"  - {_scalar(directory)}\n" for directory in directories)
    else:
        bundles = "# bundles: [../bundles]\n"
    return _TEXT.format(source=source, bundles=bundles, system=_APT_SYSTEM if is_apt else _TREE_SYSTEM)


def _scalar(path: str) -> str:
    """A path as a value: quoted as YAML wants it, dollar signs doubled."""
    return yaml.safe_dump(path.replace("$", "$$"), width=10_000, allow_unicode=True).removesuffix("...\n").strip()
