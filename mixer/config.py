"""builder.yaml: what a mix is built from, how it is signed and where clients find it.

`load` returns a `Config` in which everything is checked: a value of it needs no second look. Complaints are
ConfigErrors with file and line, and name the nearest known key. Paths are relative to the workspace. Strings expand
`$NAME` and `${NAME}` from the environment, `$$` is a dollar sign, and an undefined variable is an error (mixer
specification, section 3.1). Nothing is opened but builder.yaml itself: files that it names may come later.

Versions, the format and the list of bundles change from build to build; they are state (mixer.workspace), not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixer.errors import ConfigError, WorkspaceError
from mixer.located import Node, Origin, parse_yaml, read_text
from mixer.workspace import Workspace
from swupd.formats.manifest import is_bundle_name

DEFAULT_CERTIFICATE = "Swupd_Root.pem"
DEFAULT_KEY = "private.pem"
DEFAULT_UPDATE_BUNDLE = "os-core-update"
DEFAULT_IDS = "ids.txt"
DEFAULT_COMPONENTS = ("main",)
CONVERT = "convert"
REJECT = "reject"
OFF = "off"
STATELESS = (CONVERT, REJECT, OFF)
MAX_WORKERS = 1024
MAX_PORT = 65535

_KEYS = (
    "source",
    "bundles",
    "update_bundle",
    "content_url",
    "version_url",
    "published",
    "certificate",
    "key",
    "os_release",
    "stateless",
    "updater",
    "root_password",
    "setuid",
    "workers",
    "engine",
)
_APT_KEYS = (
    "type",
    "suites",
    "components",
    "mirrors",
    "keyring",
    "architecture",
    "path_excludes",
    "ids",
)
_TREE_KEYS = ("type", "path")
_MIRROR_KEYS = ("uri", "suites")
_ENGINE_KEYS = ("dask",)

_VARIABLE = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\}|)")
_URL = re.compile(r"(?:https?|file)://\S+")
_SCHEME = re.compile(r"[A-Za-z0-9+.-]+:/")
_OBJECT_STORE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SCHEDULER = re.compile(r"(?:tcp|tls)://(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_MIRROR_URI = re.compile(r"(?:https?://[^\s\[\]]+|(?:file|copy):/[^\s\[\]]+)")
_APT_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~/_-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_OS_RELEASE_KEY = re.compile(r"[A-Z][A-Z0-9_]*")
_OWN_OS_RELEASE_KEYS = frozenset({"VERSION_ID"})
"""Keys of os-release that every build sets by itself."""


@dataclass(frozen=True)
class Mirror:
    """Where suites are fetched from. Without `suites` it serves all that no other mirror names."""

    uri: str
    suites: tuple[str, ...] = ()


@dataclass(frozen=True)
class AptSource:
    """Debian packages."""

    suites: tuple[str, ...]
    components: tuple[str, ...]
    mirrors: tuple[Mirror, ...]
    """Empty: the host's own apt configuration tells where the suites are."""
    keyring: Path | None
    """The keys that may sign the archive; None: those that the host trusts."""
    architecture: str
    """Empty: the host's."""
    path_excludes: tuple[str, ...]
    """Patterns of dpkg's path-exclude, absolute."""
    ids: Path
    """The append-only table of user and group ids."""

    def uris(self, suite: str) -> tuple[str, ...]:
        """The mirrors of a suite, in the order given; empty if the host's apt configuration is to be used."""
        named = tuple(mirror.uri for mirror in self.mirrors if suite in mirror.suites)
        return named or tuple(mirror.uri for mirror in self.mirrors if not mirror.suites)


@dataclass(frozen=True)
class TreeSource:
    """Prepared roots: `path`/<version>/full and the files beside it (mixer specification, sections 3.3 and 6)."""

    path: Path


@dataclass(frozen=True)
class Config:
    """A checked builder.yaml; all paths are absolute."""

    source: AptSource | TreeSource
    bundle_directories: tuple[Path, ...] = ()
    """Definitions beyond local-bundles, which is searched first."""
    update_bundle: str = DEFAULT_UPDATE_BUNDLE
    """The bundle that receives the URLs, the format and the certificate for clients."""
    content_url: str = ""
    version_url: str = ""
    published: str = ""
    """Where the published tree lies: s3://bucket/path, or an absolute directory; empty: update/www."""
    certificate: Path = Path(DEFAULT_CERTIFICATE)
    key: Path = Path(DEFAULT_KEY)
    os_release: Mapping[str, str] = field(default_factory=dict)
    """Values that replace or extend those of os-release."""
    stateless: str = OFF
    """What is done about content outside of /usr and /boot: one of STATELESS."""
    updater: bool = False
    """The update bundle gets swupd itself, with its libraries and units."""
    root_password: Path | None = None
    """A file with the hash of root's password; None: nobody can log in as root with one."""
    setuid: tuple[str, ...] = ()
    """Files that may be setuid or setgid, besides the usual ones."""
    workers: int = 0
    """Processes or threads at work; 0: one for each core."""
    engine: str = ""
    """Address of the Dask scheduler whose workers do the heavy work; empty: this machine does."""


def load(workspace: Workspace, environ: Mapping[str, str]) -> Config:
    """Read and check builder.yaml. Raises WorkspaceError if there is none, ConfigError for anything wrong in it."""
    workspace.require()
    origin = Origin(workspace.shown(workspace.config_file), ConfigError)
    try:
        text = read_text(workspace.config_file, origin)
    except OSError as error:
        raise WorkspaceError(f"cannot read {workspace.config_file}: {error.strerror}") from error
    return parse(text, workspace.path, environ, origin)


def parse(text: str, base: Path, environ: Mapping[str, str], origin: Origin) -> Config:
    """The configuration in a text; relative paths are below `base`."""
    return _Reader(base, environ).config(parse_yaml(text, origin))


class _Reader:
    """Values of nodes, with variables expanded and paths made absolute."""

    def __init__(self, base: Path, environ: Mapping[str, str]) -> None:
        self._base = base
        self._environ = environ

    def config(self, node: Node) -> Config:
        keys = node.section(_KEYS)
        if "source" not in keys:
            raise node.error("source is missing", hint="say where content comes from, such as source: {type: apt, …}")
        certificate = self.path(keys["certificate"]) if "certificate" in keys else self._base / DEFAULT_CERTIFICATE
        content_url = self.url(keys["content_url"]) if "content_url" in keys else ""
        source = self.source(keys["source"])
        stateless = self.stateless(keys["stateless"], source) if "stateless" in keys else OFF
        return Config(
            source=source,
            bundle_directories=tuple(self.path(item) for item in keys["bundles"].items()) if "bundles" in keys else (),
            update_bundle=self.bundle(keys["update_bundle"]) if "update_bundle" in keys else DEFAULT_UPDATE_BUNDLE,
            content_url=content_url,
            version_url=self.url(keys["version_url"]) if "version_url" in keys else content_url,
            published=self.place(keys["published"]) if "published" in keys else "",
            certificate=certificate,
            key=self.path(keys["key"]) if "key" in keys else certificate.with_name(DEFAULT_KEY),
            os_release=self.os_release(keys["os_release"]) if "os_release" in keys else {},
            stateless=stateless,
            updater=self.updater(keys["updater"], source) if "updater" in keys else False,
            root_password=self.root_password(keys["root_password"], stateless) if "root_password" in keys else None,
            setuid=tuple(self.absolute(item, "a path of setuid") for item in keys["setuid"].items())
            if "setuid" in keys
            else (),
            workers=keys["workers"].integer(0, MAX_WORKERS) if "workers" in keys else 0,
            engine=self.engine(keys["engine"]) if "engine" in keys else "",
        )

    def source(self, node: Node) -> AptSource | TreeSource:
        keys = node.mapping()
        if "type" not in keys:
            raise node.error("source has no type", hint="type: apt for Debian packages, type: tree for prepared roots")
        if keys["type"].choice(("apt", "tree")) == "tree":
            keys = node.section(_TREE_KEYS)
            if "path" not in keys:
                raise node.error("source has no path", hint="path: the directory that holds <version>/full")
            return TreeSource(self.path(keys["path"]))
        return self.apt(node)

    def apt(self, node: Node) -> AptSource:
        keys = node.section(_APT_KEYS)
        if "suites" not in keys:
            raise node.error("source has no suites", hint="such as suites: [bookworm, bookworm-security]")
        suites = self.words(keys["suites"])
        return AptSource(
            suites=suites,
            components=self.words(keys["components"]) if "components" in keys else DEFAULT_COMPONENTS,
            mirrors=self.mirrors(keys["mirrors"], suites) if "mirrors" in keys else (),
            keyring=self.path(keys["keyring"]) if "keyring" in keys else None,
            architecture=self.matching(keys["architecture"], _ARCHITECTURE, "the name of an architecture")
            if "architecture" in keys
            else "",
            path_excludes=tuple(
                self.absolute(item, "a pattern of path_excludes") for item in keys["path_excludes"].items()
            )
            if "path_excludes" in keys
            else (),
            ids=self.path(keys["ids"]) if "ids" in keys else self._base / DEFAULT_IDS,
        )

    def mirrors(self, node: Node, suites: tuple[str, ...]) -> tuple[Mirror, ...]:
        mirrors = tuple(self.mirror(item, suites) for item in node.items())
        if not mirrors:
            return ()
        served = {suite for mirror in mirrors for suite in mirror.suites}
        unserved = [suite for suite in suites if suite not in served]
        if unserved and all(mirror.suites for mirror in mirrors):
            hint = "a mirror without suites serves all that no other one names"
            raise node.error(f"no mirror serves the suite {unserved[0]}", hint=hint)
        return mirrors

    def mirror(self, node: Node, suites: tuple[str, ...]) -> Mirror:
        if isinstance(node.value, str):
            return Mirror(self.mirror_uri(node))
        keys = node.section(_MIRROR_KEYS)
        if "uri" not in keys:
            raise node.error("a mirror has no uri")
        served = self.words(keys["suites"]) if "suites" in keys else ()
        for suite in served:
            if suite not in suites:
                raise node.error(f"the mirror names the suite {suite}, which is not one of source.suites")
        return Mirror(self.mirror_uri(keys["uri"]), served)

    def mirror_uri(self, node: Node) -> str:
        return self.matching(node, _MIRROR_URI, "the URI of an archive (https://…, http://… or file:/…)").rstrip("/")

    def os_release(self, node: Node) -> dict[str, str]:
        values: dict[str, str] = {}
        for name, value in node.mapping().items():
            if not _OS_RELEASE_KEY.fullmatch(name):
                raise value.error(f"{name} is no name for os-release", hint="capital letters, digits and _")
            if name in _OWN_OS_RELEASE_KEYS:
                raise value.error(f"{name} is set by every build", hint="leave it out")
            values[name] = self.line(value)
        return values

    def stateless(self, node: Node, source: AptSource | TreeSource) -> str:
        policy = node.choice(STATELESS)
        if policy == CONVERT and isinstance(source, TreeSource):
            raise node.error(
                "prepared roots are not converted, because they are not ours to change",
                hint="stateless: reject refuses a root that is not stateless; `mixer lint` says what is wrong with it",
            )
        return policy

    def updater(self, node: Node, source: AptSource | TreeSource) -> bool:
        wanted = self.boolean(node)
        if wanted and isinstance(source, TreeSource):
            raise node.error("nothing is added to prepared roots", hint="let the roots have the updater already")
        return wanted

    def root_password(self, node: Node, stateless: str) -> Path:
        if stateless != CONVERT:
            raise node.error("root_password needs stateless: convert", hint="leave it out")
        return self.path(node)

    def boolean(self, node: Node) -> bool:
        return node.choice(("true", "false")) == "true"

    def engine(self, node: Node) -> str:
        keys = node.section(_ENGINE_KEYS)
        if "dask" not in keys:
            raise node.error("engine has no dask", hint="dask: the address of a scheduler, such as tcp://10.0.0.1:8786")
        address = self.matching(
            keys["dask"], _SCHEDULER, "the address of a Dask scheduler (tcp://… or tls://host:port)"
        )
        if not 0 < int(address.rpartition(":")[2]) <= MAX_PORT:
            raise keys["dask"].error(f"{keys['dask'].key} has no port between 1 and {MAX_PORT}: {address}")
        return address

    def bundle(self, node: Node) -> str:
        name = self.string(node)
        if not is_bundle_name(name):
            raise node.error(f"{name} is no name for a bundle")
        return name

    def url(self, node: Node) -> str:
        return self.matching(node, _URL, "a URL (https://…, http://… or file://…)").rstrip("/")

    def place(self, node: Node) -> str:
        """Where a tree lies. The value is not repeated in messages: people write secrets into URLs."""
        value = self.line(node)
        scheme = _SCHEME.match(value)
        if scheme is None:
            return str(self.path(node))
        if scheme[0].lower() != "s3:/":
            raise node.error(
                f"{node.key} cannot be a URL of the kind {scheme[0]}/",
                hint="a directory, or s3://bucket/path for an object store; most stores speak S3",
            )
        value = value.rstrip("/")
        if not _OBJECT_STORE.fullmatch(value):
            raise node.error(
                f"{node.key} must be s3://bucket/path, of letters, digits, dots and hyphens",
                hint="endpoint and credentials come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like",
            )
        return value

    def words(self, node: Node) -> tuple[str, ...]:
        values = tuple(self.matching(item, _APT_WORD, "a plain word") for item in node.items())
        if not values:
            raise node.error(f"{node.key} is empty")
        if len(set(values)) < len(values):
            raise node.error(f"{node.key} names something twice")
        return values

    def absolute(self, node: Node, what: str) -> str:
        value = self.line(node)
        if not value.startswith("/"):
            raise node.error(f"{what} must begin with /")
        return value

    def path(self, node: Node) -> Path:
        value = self.line(node)
        if not value:
            raise node.error(f"{node.key} is empty")
        return self._base / value

    def matching(self, node: Node, pattern: re.Pattern[str], expected: str) -> str:
        value = self.string(node)
        if not pattern.fullmatch(value):
            raise node.error(f"{node.key} must be {expected}, not {value!r}")
        return value

    def line(self, node: Node) -> str:
        value = self.string(node)
        if not value.isprintable():
            raise node.error(f"{node.key} must be one line of plain text")
        return value

    def string(self, node: Node) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if match[0] == "$$":
                return "$"
            if not name:
                raise node.error("a $ without a variable's name", hint="write $$ for the character itself")
            if name not in self._environ:
                raise node.error(f"the variable {name} is not set", hint="set it, or write $$ for a plain $")
            return self._environ[name]

        return _VARIABLE.sub(value, node.text())
