"""Debian packages as a source: apt resolves and fetches, mmdebstrap installs, the finished root is kept by its key.

`resolve` asks a private apt (its own lists, its own empty status, archives of `aptconfig`) what an empty machine would
install for the packages of the mix and the essential ones; Recommends are off, so that every package in the root is in
some bundle's closure. It takes half a second, and downloads lists only if they changed.

`install` takes the root from the cache if its key is there. Otherwise it downloads the package files that are missing
(kept, and verified by SHA-256 at every use), installs them, and finishes the root: ids from the mix's table,
capabilities, alternatives, what never ships, licences, and who owns which path. Two builds of one key give the same
root, modification times apart. The key covers the package files, the settings below, mmdebstrap's version and this
package's own code; it does not cover mirrors (the files are the same everywhere) nor the table of ids (which only
grows: a cached root is used if its ids agree with the table, and made anew otherwise).

The cache directory is the caller's, under the workspace's lock: apt/ (lists), debs/, roots/, install.log.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from mixer.config import AptSource
from mixer.errors import SourceError, UnknownPackageError
from mixer.located import did_you_mean
from mixer.sources import (
    Package,
    PackageDatabase,
    PackageFile,
    Resolution,
    adopt,
    aptconfig,
    dpkg,
    ids,
    licences,
    mmdebstrap,
    rootcache,
    scrub,
)
from swupd import process
from swupd.errors import CommandError, NotRootError
from swupd.formats import layout
from swupd.report import Report, counted

KEEP_DEBS_SECONDS = 30 * 24 * 3600
"""Package files that no build used for so long go."""
RETRIES = 3
"""Attempts of apt at each file, if the host does not say otherwise."""
MAX_PACKAGES = 100_000
"""Package files of one root."""

_ESSENTIAL = "?essential"
_URI_LINE = re.compile(r"'[^']*' (\S+_\S+_\S+\.deb) (\d+) SHA256:([0-9a-f]{64})")
_UNKNOWN = re.compile(r"E: (?:Unable to locate package (\S+)|Package '([^']+)' has no installation candidate)")
_CONFLICT = "The following packages have unmet dependencies:"
_HASH_BYTES = 1 << 20


class AptPackages:
    """A PackageSource. Nothing is read or created before a method is called."""

    def __init__(self, config: AptSource, cache: Path) -> None:
        self._config = config
        self._cache = cache.absolute()
        self._debs = self._cache / "debs"
        self._roots = rootcache.RootCache(self._cache / "roots")

    def resolve(self, packages: Sequence[str], report: Report) -> Resolution:
        """See PackageSource."""
        requested = tuple(sorted(set(packages)))
        apt = self._apt()
        report.verbose("Reading the lists of packages")
        apt.update()
        files = apt.resolve(requested)
        return Resolution(self._key(files), files, requested)

    def install(self, resolution: Resolution, root: Path, report: Report) -> PackageDatabase:
        """See PackageSource. Raises NotRootError too: the files of a root have owners."""
        if os.geteuid() != 0:
            raise NotRootError("making a root needs root: files have owners", hint="run the command with sudo")
        table = ids.IdTable.load(self._config.ids)
        record = self._roots.find(resolution.key)
        if record and table.admits(record.accounts):
            report.step("unpack-root", "Unpacking the root, which was installed before")
            if not self._roots.unpack(resolution.key, root):
                report.warning("The cached root is damaged; the packages are installed again")
                record = None
        else:
            record = None
        if record is None:
            record = self._make(resolution, root, table, report)
        extended = table.extended(record.accounts)
        if extended != table:
            extended.save(self._config.ids)
        for note in record.notes:
            report.info(note)
        return record.database

    # -- making a root ---------------------------------------------------------------------------------------------

    def _make(self, resolution: Resolution, root: Path, table: ids.IdTable, report: Report) -> rootcache.Record:
        apt = self._apt()
        self._download(apt, resolution, report)
        report.step("install-packages", f"Installing {counted(len(resolution.files), 'package')}")
        what = mmdebstrap.Installation(
            files=resolution.files,
            debs=self._debs,
            apt_tree=apt.tree,
            sources=apt.sources,
            architecture=apt.architecture,
            path_excludes=self._config.path_excludes,
            log=self._cache / "install.log",
        )
        mmdebstrap.install(what, root, report)
        try:
            record = _finish(root, resolution.files, self._config.path_excludes, table, report)
            report.step("keep-root", "Keeping the root for the next build")
            self._roots.add(resolution.key, root, record)
        except BaseException:
            mmdebstrap.remove_root(root)
            raise
        return record

    def _download(self, apt: PrivateApt, resolution: Resolution, report: Report) -> None:
        missing = [file for file in resolution.files if not _is_intact(self._debs / file.name, file.sha256)]
        if missing:
            report.step("download-packages", f"Downloading {counted(len(missing), 'package')}")
            for file in missing:
                (self._debs / file.name).unlink(missing_ok=True)
            apt.download(resolution.requested, self._debs)
            for file in missing:
                if not _is_intact(self._debs / file.name, file.sha256):
                    raise SourceError(
                        f"{file.name} was not downloaded as the signed lists describe it",
                        hint="the mirror may be changing at the moment: try again",
                    )
        now = time.time()
        used = {file.name for file in resolution.files}
        for path in self._debs.glob("*.deb"):
            if path.name in used:
                os.utime(path, (now, now))
            elif path.stat().st_mtime < now - KEEP_DEBS_SECONDS:
                path.unlink()

    def _apt(self) -> PrivateApt:
        return PrivateApt(self._config, self._cache / "apt")

    def _key(self, files: Iterable[PackageFile]) -> str:
        decisive = {
            "files": list(files),
            "path_excludes": list(self._config.path_excludes),
            "epoch": mmdebstrap.SOURCE_DATE_EPOCH,
            "mmdebstrap": mmdebstrap.version(),
            "code": _code_digest(),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class PrivateApt:
    """An apt that shares nothing with the host's but the way to the archives. One tree for each list of archives."""

    def __init__(self, config: AptSource, directory: Path) -> None:
        self._suites = " ".join(config.suites)
        archives = aptconfig.archives(config)
        sources = "\n".join(archive.stanza() for archive in archives)
        self.architecture = config.architecture or _host_architecture()
        name = hashlib.sha256(f"{self.architecture}\n{sources}".encode()).hexdigest()[:16]
        self.tree = directory / name
        self.sources = self.tree / "etc/apt/sources.list.d/mix.sources"
        for part in (
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "etc/apt/trusted.gpg.d",
            "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial",
            "var/lib/dpkg",
        ):
            (self.tree / part).mkdir(parents=True, exist_ok=True)
        (self.tree / "var/lib/dpkg/status").write_text("")
        self.sources.write_text(sources)
        self._configuration = self.tree / "apt.conf"
        self._configuration.write_text("\n".join(self._settings()) + "\n")

    def update(self) -> None:
        """Bring the lists up to date. Raises SourceError."""
        try:
            self._run("apt-get", "-qq", "--error-on=any", "update")
        except CommandError as error:
            raise SourceError(
                f"cannot read the package lists of {self._suites}: {_first_error(error)}",
                hint="check the network, the mirrors and the suites; nothing was changed",
            ) from error

    def resolve(self, packages: Sequence[str]) -> tuple[PackageFile, ...]:
        """All that would be installed on an empty machine, sorted. Raises UnknownPackageError, SourceError."""
        done = process.run(
            self._install("-q", "-o", "Acquire::ForceHash=SHA256", "--print-uris", packages=packages),
            env=self._environment,
            check=False,
        )
        output, errors = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
        unknown = {match[1] or match[2] for match in _UNKNOWN.finditer(errors)} & set(packages)
        files = []
        for line in output.splitlines():
            if line.startswith("'"):
                match = _URI_LINE.fullmatch(line)
                if not match:
                    raise SourceError(f"apt gives no SHA-256 for a package: {line[:200]}")
                files.append(PackageFile(match[1], match[3]))
        if done.returncode == 0:
            # A name that apt took for something else (a virtual package, a pattern, a removal) is no package either.
            unknown |= set(packages) - {mmdebstrap.NameParts(file.name).name for file in files}
        if unknown:
            raise UnknownPackageError(unknown, hint=self._hint(unknown))
        if done.returncode != 0:
            raise SourceError(
                f"the packages cannot be installed together: {_conflict(output, errors)}",
                hint="remove one of them from the definitions, or name the alternative that is wanted",
            )
        if len(files) > MAX_PACKAGES:
            raise SourceError(f"the packages require more than {MAX_PACKAGES} others")
        return tuple(sorted(files))

    def download(self, packages: Sequence[str], debs: Path) -> None:
        """Fetch the package files that `resolve` named and that are not in `debs`. Raises SourceError."""
        (debs / "partial").mkdir(parents=True, exist_ok=True)
        command = self._install("-qq", "--download-only", "-o", f"Dir::Cache::archives={debs}", packages=packages)
        try:
            process.run(command, env=self._environment)
        except CommandError as error:
            raise SourceError(
                f"cannot download the packages: {_first_error(error)}",
                hint="check the network and the mirrors; what was downloaded is kept for the next attempt",
            ) from error

    @property
    def _environment(self) -> dict[str, str]:
        return aptconfig.environment(os.environ) | {"APT_CONFIG": str(self._configuration)}

    def _settings(self) -> list[str]:
        return [
            f'APT::Architecture "{self.architecture}";',
            f'APT::Architectures "{self.architecture}";',
            'APT::Install-Recommends "false";',
            'APT::Sandbox::User "root";',  # the workspace may be readable for root only
            'pkgCacheGen::ForceEssential ",";',  # else apt counts itself among the essential packages
            'Acquire::Languages "none";',
            f'Acquire::Retries "{RETRIES}";',
            *aptconfig.host_settings(),
            f'Dir "{self.tree}";',
            f'Dir::State::Status "{self.tree}/var/lib/dpkg/status";',
            f'Dir::Etc::netrc "{aptconfig.HOST_DIRECTORY}/auth.conf";',
            f'Dir::Etc::netrcparts "{aptconfig.HOST_DIRECTORY}/auth.conf.d";',
        ]

    def _install(self, *options: str, packages: Sequence[str]) -> list[str]:
        return ["apt-get", "-y", *options, "install", _ESSENTIAL, *packages]

    def _run(self, *argv: str) -> bytes:
        return process.run(argv, env=self._environment).stdout

    def _hint(self, unknown: Iterable[str]) -> str:
        names = os.fsdecode(self._run("apt-cache", "pkgnames")).split()
        suggestions = [hint for name in sorted(unknown) if (hint := did_you_mean(name, names))]
        return "; ".join([*suggestions[:1], f"the suites are {self._suites}"])


def _finish(
    root: Path, files: Sequence[PackageFile], path_excludes: Sequence[str], table: ids.IdTable, report: Report
) -> rootcache.Record:
    """Turn what mmdebstrap made into what ships, and tell what is in it."""
    report.step("finish-root", "Finishing the root")
    installed = dpkg.read_status(root / dpkg.STATE / "status")
    _check_installed(installed, files)
    expressions = licences.read(root, installed)
    licences.drop_excluded(root, path_excludes)
    vendor = _vendor(root)
    owners = dpkg.read_owners(root, installed)
    accounts = table.assigned(ids.read_accounts(root))
    ids.renumber(root, accounts)
    notes = scrub.convert_capabilities(root, owners)
    scrub.flatten_alternatives(root)
    notes += [f"{path} is a private key made at installation and does not ship" for path in scrub.scrub(root, owners)]
    adoption = adopt.adopt(str(root), owners)
    paths: dict[str, list[str]] = {name: [] for name in installed}
    for path, packages in owners.items():
        if os.path.lexists(f"{root}{path}"):
            for package in packages:
                paths[package].append(path)
    for path, package in adoption.owner.items():
        paths[package].append(path)
    database = PackageDatabase(
        packages={
            name: Package(
                name,
                package.version,
                tuple(sorted(paths[name], key=os.fsencode)),
                package.requires,
                package.essential,
                architecture=package.architecture,
                source=package.source,
                licence=expressions.get(name, ""),
                homepage=package.homepage,
                maintainer=package.maintainer,
                purl=_purl(vendor, package),
            )
            for name, package in installed.items()
        },
        base=dpkg.base_packages(installed),
        unowned=adoption.unowned,
    )
    return rootcache.Record(database, accounts, tuple(notes))


def _check_installed(installed: Mapping[str, dpkg.Installed], files: Sequence[PackageFile]) -> None:
    wanted = {(parts.name, parts.version) for parts in (mmdebstrap.NameParts(file.name) for file in files)}
    present = {(package.name, package.version) for package in installed.values()}
    if wanted != present:
        names = ", ".join(sorted({name for name, _ in wanted ^ present})[:5])
        raise SourceError(
            f"the installed packages are not those that were resolved: {names}",
            hint="name the alternative that is wanted in a definition",
        )


def _vendor(root: Path) -> str:
    """Whose packages these are: the ID in the root's os-release."""
    path = root / layout.OS_RELEASE[1:]
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return next((line.removeprefix("ID=").strip("\"'") for line in lines if line.startswith("ID=")), "debian")


def _purl(vendor: str, package: dpkg.Installed) -> str:
    vendor, name, version = (quote(text, safe="") for text in (vendor, package.name, package.version))
    return f"pkg:deb/{vendor}/{name}@{version}?arch={package.architecture}"


def _is_intact(path: Path, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_HASH_BYTES):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == sha256


def _code_digest() -> str:
    """Stands for the rules by which a root is made: one that other rules made is not used."""
    digest = hashlib.sha256()
    for path in (
        __file__,
        adopt.__file__,
        dpkg.__file__,
        ids.__file__,
        licences.__file__,
        mmdebstrap.__file__,
        scrub.__file__,
    ):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _host_architecture() -> str:
    return os.fsdecode(process.run(["dpkg", "--print-architecture"], env=aptconfig.environment({})).stdout).strip()


def _first_error(error: CommandError) -> str:
    """What apt complains about first, without its prefix."""
    text = str(error)
    match = re.search(r"\bE: (.*?)(?: \| |$)", text)
    return match[1] if match else text


def _conflict(output: str, errors: str) -> str:
    """apt's own explanation on one line."""
    lines = output.partition(_CONFLICT)[2].splitlines()
    reasons = [" ".join(line.split()) for line in lines if line.startswith(" ")]
    return "; ".join(reasons[:3]) or " ".join(errors.split())
