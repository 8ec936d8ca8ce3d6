"""Where the archives are, and how this host reaches them: the host's own apt configuration, read and carried over.

Builds use an apt of their own (mixer.sources.apt) that must find the same mirrors the same way as the host does. Taken
over are, for each suite of the mix, the URI and the key of the first entry of sources.list(.d) that offers it with all
wanted components, unless builder.yaml names mirrors; and the settings that concern the network (`CARRIED`), such as
proxies and certificates.

Never taken over is anything that turns the verification of signatures off: every archive is verified against a keyring,
in doubt the distribution's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debian.deb822 import Deb822

from mixer.config import AptSource
from mixer.errors import SourceError
from swupd import process

DEFAULT_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HOST_DIRECTORY = Path("/etc/apt")

CARRIED = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::socks5h",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-ValidTime",
    "Acquire::Min-ValidTime",
)
"""Settings, with all that is below them, that decide how archives are reached and how old their lists may be."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
"""Environment variables that apt's methods read, in lower case only."""

MAX_SOURCES_BYTES = 1024 * 1024
"""One file of sources.list.d."""

_SETTING = re.compile(r'([^ "]+) "((?:[^"\\]|\\.)*)";')
_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)")


@dataclass(frozen=True, slots=True)
class Archive:
    """One suite at one place."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: str
    """An absolute path, or a whole ASCII-armoured key."""

    def stanza(self) -> str:
        """The entry of a .sources file."""
        lines = self.keyring.strip().splitlines()
        key = lines[0] if len(lines) == 1 else "\n" + "\n".join(f" {line.strip() or '.'}" for line in lines)
        components = " ".join(self.components)
        # apt leaves packages of file: where they are; they are wanted in the cache, as all others.
        uri = self.uri.replace("file:", "copy:", 1) if self.uri.startswith("file:") else self.uri
        return f"Types: deb\nURIs: {uri}\nSuites: {self.suite}\nComponents: {components}\nSigned-By: {key}\n"


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One suite of one entry of the host's sources.list(.d)."""

    uri: str
    suite: str
    components: frozenset[str]
    keyring: str
    """Value of Signed-By, empty if the entry has none."""


def archives(config: AptSource, directory: Path = HOST_DIRECTORY) -> tuple[Archive, ...]:
    """The archives of a mix, in the order of its suites. Raises SourceError for a suite that nobody offers."""
    host = list(host_entries(directory))
    found = []
    for suite in config.suites:
        entry = _host_entry(host, suite, config.components)
        uris = config.uris(suite)
        if not uris and entry is None:
            raise SourceError(
                f"this host's apt configuration has no entry for the suite {suite} "
                f"with the component{'s' if len(config.components) > 1 else ''} {' '.join(config.components)}",
                hint="name a mirror with `mirrors` in the source of builder.yaml, or correct `suites`",
            )
        keyring = str(config.keyring) if config.keyring else _keyring(entry)
        if keyring.startswith("/") and not Path(keyring).is_file():
            raise SourceError(
                f"the keyring {keyring}, which has to verify the suite {suite}, does not exist",
                hint="install the distribution's archive keyring, or name one with `keyring` in builder.yaml",
            )
        found += [Archive(uri, suite, config.components, keyring) for uri in uris or (entry.uri if entry else "",)]
    return tuple(found)


def host_entries(directory: Path) -> Iterator[HostEntry]:
    """The binary archives in sources.list and sources.list.d, in apt's order."""
    parts = directory / "sources.list.d"
    names = sorted(parts.iterdir()) if parts.is_dir() else []
    for path in [directory / "sources.list", *names]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = _read(path)
        yield from _one_line_entries(text) if path.suffix == ".list" else _deb822_entries(text)


def carried_settings(dump: str) -> list[str]:
    """The lines of `apt-config dump` that a private apt needs to reach what the host reaches."""
    lines = []
    for match in map(_SETTING.fullmatch, dump.splitlines()):
        if match and match[2] and any(match[1] == name or match[1].startswith(f"{name}::") for name in CARRIED):
            lines.append(match[0])
    return lines


def host_settings() -> list[str]:
    """The same, asked from the host's apt."""
    dump = process.run(["apt-config", "dump"], env=environment(os.environ)).stdout
    return carried_settings(os.fsdecode(dump))


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for apt: nothing of the caller's but the proxies."""
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return clean | {name: environ[name] for name in PROXY_VARIABLES if environ.get(name)}


def _host_entry(host: Sequence[HostEntry], suite: str, components: Iterable[str]) -> HostEntry | None:
    """The entry for a suite. Other vendors name their suites alike; those of the distribution's own key come first."""
    fitting = [entry for entry in host if entry.suite == suite and entry.components.issuperset(components)]
    own = [entry for entry in fitting if entry.keyring in ("", str(DEFAULT_KEYRING))]
    return next(iter(own or fitting), None)


def _keyring(entry: HostEntry | None) -> str:
    if entry is None or not (entry.keyring.startswith("/") or "\n" in entry.keyring):
        return str(DEFAULT_KEYRING)
    return entry.keyring


def _one_line_entries(text: str) -> Iterator[HostEntry]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match and not match[3].endswith("/"):
            options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
            yield HostEntry(match[2].rstrip("/"), match[3], frozenset(match[4].split()), options.get("signed-by", ""))


def _deb822_entries(text: str) -> Iterator[HostEntry]:
    for stanza in Deb822.iter_paragraphs(text.splitlines(), use_apt_pkg=False):
        if "deb" not in stanza.get("Types", "").split() or stanza.get("Enabled", "yes").strip().lower() == "no":
            continue
        keyring = "\n".join(
            "" if line.strip() == "." else line.strip() for line in stanza.get("Signed-By", "").splitlines()
        )
        for uri in stanza.get("URIs", "").split():
            for suite in stanza.get("Suites", "").split():
                if not suite.endswith("/"):
                    components = frozenset(stanza.get("Components", "").split())
                    yield HostEntry(uri.rstrip("/"), suite, components, keyring.strip())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SOURCES_BYTES + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_SOURCES_BYTES:
        raise SourceError(f"{path} is larger than {MAX_SOURCES_BYTES} bytes")
    return data.decode(errors="replace")
