"""Definitions and packages become one root and the list of files of every bundle (mixer specification, section 6).

* Packages are installed once, for all bundles. A bundle lists everything that the closure of its own packages and of
  those of the bundles it includes owns; nothing is subtracted here. os-core also has the packages that every system
  has, and the paths that belong to no package. What of /etc and /var may ship is the source's decision.
* content() trees are merged into the root: what is new is copied with mode and owner, what exists must be equal, and
  where a tree has a directory the root may have a link to one.
* Written by us: the tracking file of every bundle; os-release, version and versionstamp in os-core; the clients'
  default URLs, format and certificate in the update bundle.
* A bundle named guest-minimal or guest-systemd has what runs a command in a guest (mixer.guestfiles).
* If builder.yaml wants it, the updater joins the update bundle, and the OS becomes a stateless one that boots: base
  files in os-core, an initrd beside each kernel, and the conversion of the whole (mixer.stateless), which comes last.
* Every list has all parent directories of its paths, and an export flag for programs on the PATH.

The result is in image/<version>. It is replaced as a whole: before the new root is begun the old composition is made
unloadable, and the new one can be loaded only when it is complete. Composing a version again gives the same root: its
versionstamp is kept beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixer import composition, guestfiles, initrd, packagelist, pythonlist, stateless, updater
from mixer.bundles import BundleSet
from mixer.composition import ComposedBundle, Composition, check_path
from mixer.config import CONVERT, Config
from mixer.errors import BuildError, UnknownPackageError
from mixer.packagelist import PackageList
from mixer.rootfiles import RootFiles
from mixer.sourcedate import source_date
from mixer.sources import PackageDatabase, PackageSource
from mixer.sources.dpkg import Canonical
from mixer.stateless.accounts import read_password
from mixer.subtraction import parents, subtracted
from mixer.workspace import Workspace
from swupd.errors import FormatError
from swupd.formats import filehash, layout
from swupd.fs import replace_file
from swupd.report import Report

EXPORTED = ("/bin/", "/usr/bin/", "/usr/local/bin/")
"""Below these a path is offered on the PATH of a foreign root, unless un-export() names it."""
STAMP_FILE = "versionstamp"
MAX_STAMP = 2**31 - 1
"""What old clients read as a time."""
MAX_OS_RELEASE_BYTES = 64 * 1024

_PLAIN_VALUE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/+-")


def compose(
    workspace: Workspace,
    config: Config,
    bundles: BundleSet,
    source: PackageSource,
    report: Report,
    *,
    version: int,
    format_number: int,
) -> Composition:
    """Make image/<version>: root, -info files, groups.ini. The workspace's lock is held by the caller.

    Raises DefinitionError (unknown package, conflicting content()), ConfigError (the root password), SourceError,
    BuildError.
    """
    wanted_stamp = source_date(os.environ)
    root_password = read_password(config.root_password) if config.root_password else ""
    report.step("resolve-packages", "Resolving packages")
    try:
        resolution = source.resolve(bundles.packages, report)
    except UnknownPackageError as error:
        raise bundles.unknown_packages(error) from error
    image = workspace.image(version)
    stamp = _begin(image, wanted_stamp)
    root = image / f"{composition.ROOT}.new"
    database = source.install(resolution, root, report)
    try:
        report.step("compose-bundles", "Composing bundles")
        files = Files(bundles, database)
        _merge_content(bundles, root, files)
        _write_own_files(
            workspace, config, bundles, root, files, version=version, format_number=format_number, stamp=stamp
        )
        initrds = _add_system(config, root, files, report)
        _warn_of_leftovers(files, database, report)
        canonical = Canonical(str(root))
        composed = {name: _with_initrds(files.bundle(name, canonical), initrds) for name in bundles}
        origins = {path: path for bundle in composed.values() for path in bundle.files}
        if config.stateless == CONVERT:
            composed, origins = stateless.convert(root, composed, report, root_password=root_password)
        packages = files.package_list(composed, origins, root)
        root.rename(image / composition.ROOT)
    except OSError as error:
        raise BuildError(f"cannot compose version {version}: {error.strerror}: {error.filename}") from error
    finally:
        shutil.rmtree(root, ignore_errors=True)
    result = Composition(version, image / composition.ROOT, composed, packages=packages)
    composition.save(result, image)
    return result


class Files:
    """The paths of every bundle, as they are collected. Paths are canonical; parents come last."""

    def __init__(self, bundles: BundleSet, database: PackageDatabase) -> None:
        self._bundles = bundles
        self._database = database
        self._own: dict[str, set[str]] = {name: set() for name in bundles}
        """What a bundle lists besides packages."""
        self.packages = {name: database.closure(self._packages(name)) for name in bundles}
        if layout.OS_CORE in self._own:
            self._own[layout.OS_CORE].update(database.unowned)

    def add(self, bundle: str, path: str) -> None:
        """List a path in a bundle."""
        self._own[bundle].add(path)

    def owner(self, path: str) -> str:
        """Who has a path, in words."""
        package = next((p.name for p in self._database.packages.values() if path in p.files), None)
        bundle = next((name for name, paths in self._own.items() if path in paths), None)
        return f"the package {package}" if package else f"the bundle {bundle}" if bundle else "the root"

    def bundle(self, name: str, canonical: Canonical) -> ComposedBundle:
        """The finished list of one bundle. Raises BuildError for a path that no manifest can express."""
        definition = self._bundles[name]
        un_exported = {canonical(item.name) for item in definition.un_exports}
        listed = set(self._own[name])
        for package in self.packages[name]:
            listed.update(self._database.packages[package].files)
        for path in listed:
            check_path(path, source=f"bundle {name}")
        paths = sorted({*listed, *parents(listed)}, key=os.fsencode)
        return ComposedBundle(
            name=name,
            status=definition.status or composition.ACTIVE,
            includes=tuple(item.name for item in definition.includes),
            also_adds=tuple(item.name for item in definition.also_adds),
            files={path: path.startswith(EXPORTED) and path not in un_exported for path in paths},
            packages=tuple(sorted(self.packages[name])),
            description=definition.description,
        )

    def package_list(
        self, composed: Mapping[str, ComposedBundle], origins: Mapping[str, str], root: Path
    ) -> PackageList:
        """What the version says about its packages. `origins`: path in the root -> path in the package database."""
        packages = self._database.packages
        owners = {path: name for name, package in packages.items() for path in package.files}
        paths: dict[str, list[str]] = {}
        for path, origin in origins.items():
            place = f"{root}{path}"
            if origin in owners and os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
                paths.setdefault(owners[origin], []).append(path)
        holders: dict[str, list[str]] = {}
        for bundle, above in subtracted(composed).items():
            for name in self.packages[bundle].difference(*(self.packages[other] for other in above)):
                holders.setdefault(name, []).append(bundle)
        listed = [
            packagelist.Package(
                name=name,
                version=packages[name].version,
                architecture=packages[name].architecture,
                source=packages[name].source,
                licence=packages[name].licence,
                homepage=packages[name].homepage,
                supplier=packages[name].maintainer,
                purl=packages[name].purl,
                bundles=tuple(sorted(holders[name])),
                files=tuple(sorted(paths.get(name, ()), key=os.fsencode)),
            )
            for name in holders
        ]
        listed += pythonlist.libraries(root, composed)
        return PackageList(tuple(sorted(listed, key=lambda package: package.name)))

    def _packages(self, name: str) -> Iterator[str]:
        if name == layout.OS_CORE:
            yield from self._database.base
        for member in (name, *self._bundles.includes(name)):
            yield from (package.name for package in self._bundles[member].packages)


def _begin(image: Path, wanted: int | None) -> int:
    """Clear the directory of a version for a new composition; the version's time stamp, in seconds.

    It is the one that is wanted, else that of an earlier composition, else now.
    """
    image.mkdir(parents=True, exist_ok=True)
    (image / composition.GROUPS).unlink(missing_ok=True)
    for name in (composition.ROOT, f"{composition.ROOT}.new"):
        if os.path.lexists(image / name):
            shutil.rmtree(image / name)
    path = image / STAMP_FILE
    try:
        stamp = int(path.read_text())
    except (OSError, ValueError):
        stamp = 0
    if wanted is not None or not 0 < stamp <= MAX_STAMP:
        stamp = int(time.time()) if wanted is None else max(1, wanted)
        replace_file(path, f"{stamp}\n".encode())
    return stamp


# -- content() -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tree:
    """A directory of content(), and the words for it."""

    path: Path
    bundle: str
    what: str


def _merge_content(bundles: BundleSet, root: Path, files: Files) -> None:
    canonical = Canonical(str(root))
    for name in bundles:
        definition = bundles[name]
        for located, path in zip(definition.contents, bundles.content_trees(name), strict=True):
            tree = _Tree(path, name, f"content({located.name}) of the bundle {name}")
            try:
                for found in filehash.walk(str(path), one_file_system=False):
                    _merge(found, tree, root, canonical, files)
            except _ConflictError as conflict:
                raise definition.error(
                    located.line, str(conflict), hint="remove the path from the tree, or make both the same"
                ) from conflict


class _ConflictError(Exception):
    """A path that cannot be merged; becomes a DefinitionError."""


def _merge(found: filehash.Found, tree: _Tree, root: Path, canonical: Canonical, files: Files) -> None:
    """Bring one object of a content() tree into the root and list it."""
    check_path(found.name, source=tree.what)
    path = canonical(found.name)
    target = f"{root}{path}"
    mode = found.status.st_mode
    if stat.S_ISDIR(mode) and os.path.islink(target):
        # Where the root is merged (/bin -> usr/bin), the tree need not be: its directory stands for the link's.
        path = canonical.target(path) or path
        target = f"{root}{path}"
    if not os.path.lexists(target):
        _copy(found, target, tree)
    elif not _same(found, target):
        raise _ConflictError(
            f"{found.name} of {tree.what} is not what {files.owner(path)} has there{_difference(found, target)}"
        )
    files.add(tree.bundle, path)


def _copy(found: filehash.Found, target: str, tree: _Tree) -> None:
    status = found.status
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(target)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(found.path), target)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(found.path, target, follow_symlinks=False)
    else:
        raise _ConflictError(f"{found.name} of {tree.what} is neither a file nor a directory nor a link")
    os.lchown(target, status.st_uid, status.st_gid)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))


def _same(found: filehash.Found, target: str) -> bool:
    try:
        return filehash.hash_path(found.path) == filehash.hash_path(target)
    except FormatError:
        return False


def _difference(found: filehash.Found, target: str) -> str:
    """Mode and owner of both if these are what differs, for the message."""
    ours, theirs = found.status, os.lstat(target)
    if (ours.st_mode, ours.st_uid, ours.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid):
        return ""
    return "".join(
        f"{word}{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        for word, status in ((": ", ours), (" instead of ", theirs))
    )


# -- files of our own ----------------------------------------------------------------------------------------------


def _write_own_files(
    workspace: Workspace,
    config: Config,
    bundles: BundleSet,
    root: Path,
    files: Files,
    *,
    version: int,
    format_number: int,
    stamp: int,
) -> None:
    written = RootFiles(root)

    def write(bundle: str, path: str, data: bytes) -> None:
        files.add(bundle, written.file(path, data))

    for name in bundles:
        write(name, layout.marker(name), b"")
    write(layout.OS_CORE, layout.OS_RELEASE, _os_release(root, config.os_release or {}, version))
    write(layout.OS_CORE, layout.VERSION_FILE, b"%d" % version)
    write(layout.OS_CORE, layout.VERSION_STAMP, b"%d" % stamp)
    write(config.update_bundle, layout.CONTENT_URL_FILE, config.content_url.encode())
    write(config.update_bundle, layout.VERSION_URL_FILE, config.version_url.encode())
    write(config.update_bundle, layout.FORMAT_FILE, b"%d" % format_number)
    try:
        certificate = config.certificate.read_bytes()
    except FileNotFoundError:
        return  # an unsigned mix
    except OSError as error:
        raise BuildError(
            f"cannot read the certificate {workspace.shown(config.certificate)}: {error.strerror}"
        ) from error
    write(config.update_bundle, layout.CERTIFICATE, certificate)


def _os_release(root: Path, values: Mapping[str, str], version: int) -> bytes:
    """The root's os-release with the version of the mix and the values of builder.yaml."""
    try:
        with open(f"{root}{layout.OS_RELEASE}", encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read(MAX_OS_RELEASE_BYTES).splitlines()
    except FileNotFoundError:
        lines = ["NAME=Linux", "ID=linux", 'PRETTY_NAME="Linux"']
    wanted = {**values, "VERSION_ID": str(version)}
    result = []
    for line in lines:
        key = line.partition("=")[0].strip()
        result.append(f"{key}={_quoted(wanted.pop(key))}" if key in wanted else line)
    result += [f"{key}={_quoted(value)}" for key, value in wanted.items()]
    return os.fsencode("\n".join(result) + "\n")


def _quoted(value: str) -> str:
    if value and _PLAIN_VALUE.issuperset(value):
        return value
    return '"' + "".join(f"\\{character}" if character in '"$`\\' else character for character in value) + '"'


# -- the system ----------------------------------------------------------------------------------------------------


def _add_system(config: Config, root: Path, files: Files, report: Report) -> dict[str, str]:
    """Add the updater, guests and what makes the OS boot, as far as they are wanted; initrd -> kernel, if made."""
    canonical = Canonical(str(root))
    if config.updater:
        for path in updater.ship(root, report):
            files.add(config.update_bundle, canonical(path))
    for name in sorted(guestfiles.BUNDLES.intersection(files.packages)):
        for path in guestfiles.ship(root, name):
            files.add(name, path)
    if config.stateless != CONVERT:
        return {}
    for path in updater.ship_base(root):
        files.add(layout.OS_CORE, canonical(path))
    return {canonical(path): canonical(kernel) for path, kernel in initrd.make(root).items()}


def _with_initrds(bundle: ComposedBundle, initrds: Mapping[str, str]) -> ComposedBundle:
    """The bundle with the initrds of its kernels."""
    own = {path: False for path, kernel in initrds.items() if kernel in bundle.files}
    return replace(bundle, files={**bundle.files, **own}) if own else bundle


def _warn_of_leftovers(files: Files, database: PackageDatabase, report: Report) -> None:
    listed: set[str] = set().union(*files.packages.values())
    left = sorted(set(database.packages) - listed)
    if left:
        report.warning(
            f"no bundle has the package{'s' if len(left) > 1 else ''} {', '.join(left)}: installed as an alternative "
            "that nothing in the mix leads to; name the one that is wanted in a definition"
        )
