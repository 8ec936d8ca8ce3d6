"""Versions and manifests of a published tree: verified, cached, and fetched again once when they are wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd.errors import (
    DownloadError,
    ManifestError,
    MomError,
    NotOnServerError,
    ServerError,
    SignatureError,
    UnknownBundleError,
)
from swupd.formats import archive, delta, filehash, layout, signature, updateindex
from swupd.formats.manifest import Entry, FileType, Level, Manifest, serialise
from swupd.formats.updateindex import BundleCost, Update, UpdateIndex
from swupd.network.fetch import Fetcher
from swupd.report import TextReport
from swupd.server import Server
from swupd.settings import Settings
from swupd.statedir import StateDir
from swupd.trust import Verifier
from swupd.versions import parse_versions

FILE_MODE = 0o100644
SOME_HASH = "ab" * 32


class Publisher:
    """A key with its self-signed certificate."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Example OS")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self._key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        return signature.SigningKey(self.certificate, self._key).sign(data)


class Tree:
    """A published tree in a directory, as a builder would write it, and the requests that a client made."""

    def __init__(self, directory: Path, publisher: Publisher) -> None:
        self.directory = directory
        self.publisher = publisher
        self.manifests: dict[tuple[int, str], bytes] = {}

    def write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def path(self, name: str) -> Path:
        return self.directory / name

    def publish_bundle(
        self, version: int, name: str, includes: tuple[str, ...] = (), also_add: tuple[str, ...] = (), files: int = 3
    ) -> Entry:
        entries = tuple(Entry.present(FileType.FILE, SOME_HASH, version, f"/usr/{name}/{n}") for n in range(files))
        data = serialise(make_manifest(version, entries, includes=includes, also_add=also_add), name=name)
        return self.publish_manifest(version, name, data)

    def publish_manifest(self, version: int, name: str, data: bytes) -> Entry:
        self.manifests[version, name] = data
        self.write(layout.manifest_tar(version, name), pack({f"Manifest.{name}": data}))
        return Entry.present(FileType.MANIFEST, filehash.hash_content(FILE_MODE, 0, 0, data), version, name)

    def publish_mom(self, version: int, *entries: Entry, signed_inside: bool = True, claimed: int = 0) -> None:
        ordered = tuple(sorted(entries, key=lambda entry: (entry.version, entry.name)))
        data = serialise(make_manifest(claimed or version, ordered), name="MoM")
        self.manifests[version, "MoM"] = data
        der = self.publisher.sign(data)
        inside = {"Manifest.MoM.sig": der} if signed_inside else {}
        self.write(layout.manifest_tar(version, "MoM"), pack({"Manifest.MoM": data} | inside))
        self.write(layout.manifest_signature(version), der)

    def publish_delta(self, version: int, name: str, old_version: int) -> None:
        old, new = self.manifests[old_version, name], self.manifests[version, name]
        same = min(len(old), len(new))
        changes = bytes((b - a) % 256 for a, b in zip(old[:same], new[:same], strict=True))
        triples = [(same, len(new) - same, 0)]
        made = delta.encode(len(old), triples, changes, new[same:], mode=FILE_MODE, uid=0, gid=0, compressed=True)
        self.write(layout.manifest_delta(version, name, old_version), made)

    def publish_index(self, version: int, index: UpdateIndex) -> None:
        data = updateindex.serialise(index)
        self.write(layout.update_index(version), data)
        self.write(layout.signature(layout.update_index(version)), self.publisher.sign(data))

    def publish_latest(self, text: bytes, name: str = "version/format30/latest") -> None:
        self.write(name, text)
        self.write(f"{name}.sig", self.publisher.sign(text))


def make_manifest(version: int, entries: tuple[Entry, ...], **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format": 30,
        "version": version,
        "previous": 0,
        "timestamp": 1,
        "contentsize": 1,
        "entries": entries,
    }
    return Manifest(**values | changes)


def pack(files: dict[str, bytes]) -> bytes:
    return archive.compress(archive.manifest_tar(files, 1), 1)


class CountingFetcher(Fetcher):
    """A real fetcher that remembers what it was asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[str] = []

    def get(self, url: str, **options: Any) -> bytes:
        self.asked.append(url)
        return super().get(url, **options)

    def get_from_any(self, urls: Any, **options: Any) -> Any:
        self.asked.append(urls[0])
        return super().get_from_any(urls, **options)

    def get_all(self, downloads: Any, *arguments: Any, **options: Any) -> Any:
        self.asked += [download.url for download in downloads]
        return super().get_all(downloads, *arguments, **options)


class Client:
    """A server object with all that it needs."""

    def __init__(self, directory: Path, tree: Tree, **changes: Any) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "root.pem").write_bytes(tree.publisher.certificate)
        values: dict[str, Any] = {
            "root": directory / "root",
            "cache_dir": directory / "state",
            "data_dir": directory / "state",
            "content_url": f"file://{tree.directory}",
            "version_url": f"file://{tree.directory}",
            "format": "30",
            "certificate": directory / "root.pem",
        }
        levels = changes.pop("levels", frozenset({Level.SSE}))
        self.settings = Settings(**values | changes)
        self.out, self.err = io.StringIO(), io.StringIO()
        report = TextReport(out=self.out, err=self.err, verbose=True)
        self.statedir = StateDir(self.settings.cache_dir, self.settings.data_dir, self.settings.content_url)
        self.statedir.prepare()
        self.fetcher = CountingFetcher(self.settings, report)
        self.server = Server(self.settings, self.fetcher, Verifier(self.settings, report), report, levels=levels)

    def asked(self) -> list[str]:
        """The requests since the last call, relative to the tree."""
        asked = [url.removeprefix(self.settings.content_url + "/") for url in self.fetcher.asked]
        self.fetcher.asked.clear()
        return asked


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def tree(tmp_path: Path, publisher: Publisher) -> Tree:
    (tmp_path / "tree").mkdir()
    return Tree(tmp_path / "tree", publisher)


@pytest.fixture
def client(tmp_path: Path, tree: Tree) -> Iterator[Client]:
    client = Client(tmp_path / "client", tree)
    yield client
    client.fetcher.close()


def names(manifest: Manifest) -> list[str]:
    return [entry.name for entry in manifest.entries]


# -- versions --------------------------------------------------------------------------------------------------------


def test_the_latest_version_is_that_of_our_format(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"20\n")
    assert client.server.latest_version() == 20
    assert client.asked() == ["version/format30/latest", "version/format30/latest.sig"]


def test_the_latest_version_of_all_has_a_file_of_its_own(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"30", "version/latest_version")
    assert client.server.latest_overall() == 30


def test_the_first_of_several_versions_counts(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"30 \n20\n10\n")
    assert client.server.latest_version() == 30


def test_an_overall_version_of_more_than_eleven_bytes_is_refused(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"1234567890\n\n", "version/latest_version")
    with pytest.raises(ServerError, match="larger than the 11 bytes"):
        client.server.latest_overall()


@pytest.mark.parametrize("text", [b"", b"\n20\n", b"twenty", b"-1", b"0", b"99999999999", b"\xff", "٣".encode()])
def test_a_version_file_without_a_version_is_an_error(tree: Tree, client: Client, text: bytes) -> None:
    tree.publish_latest(text)
    with pytest.raises(ServerError, match="does not contain a version"):
        client.server.latest_version()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20))
def test_any_version_file_is_a_version_or_an_error(data: bytes) -> None:
    with suppress(ServerError):
        assert all(version > 0 for version in parse_versions(data, "latest"))


def test_a_version_file_that_was_changed_is_refused(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"20\n")
    tree.write("version/format30/latest", b"30\n")
    with pytest.raises(SignatureError, match="version/format30/latest: "):
        client.server.latest_version()


def test_a_version_file_that_is_being_replaced_is_asked_for_again(
    tree: Tree, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.publish_latest(b"30\n")
    new = tree.path("version/format30/latest.sig").read_bytes()
    tree.publish_latest(b"20\n")
    tree.write("version/format30/latest.sig", new)
    get = client.fetcher.get_from_any

    def get_while_publishing(urls: list[str], **options: Any) -> Any:
        answer = get(urls, **options)
        tree.write("version/format30/latest", b"30\n")
        return answer

    monkeypatch.setattr(client.fetcher, "get_from_any", get_while_publishing)
    assert client.server.latest_version() == 30


def test_a_version_file_without_a_signature_is_refused(tree: Tree, client: Client) -> None:
    tree.write("version/format30/latest", b"20\n")
    with pytest.raises(SignatureError, match="has no signature"):
        client.server.latest_version()


def test_a_missing_version_file_is_an_error_of_the_server_with_a_hint(tree: Tree, client: Client) -> None:
    with pytest.raises(ServerError, match="version/format30/latest") as caught:
        client.server.latest_version()
    assert caught.value.exit_code == 16
    assert "version URL" in caught.value.hint


def test_an_unreachable_server_is_an_error_of_the_server(tmp_path: Path, tree: Tree) -> None:
    url = "http://127.0.0.1:1/update"
    client = Client(tmp_path / "client", tree, version_url=url, allow_insecure_http=True)
    with pytest.raises(ServerError, match="cannot connect") as caught:
        client.server.latest_version()
    assert caught.value.exit_code == 16


def test_the_signature_of_the_latest_version_alone_can_go_unchecked(tmp_path: Path, tree: Tree) -> None:
    tree.write("version/format30/latest", b"20\n")
    client = Client(tmp_path / "client", tree, check_latest_signature=False)
    assert client.server.latest_version() == 20
    assert "not checked" in client.err.getvalue()


def test_the_next_version_is_the_smallest_above_the_installed_one(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"50\n40\nnonsense\n30\n20\n")
    assert [client.server.next_version(installed) for installed in (10, 20, 35, 49)] == [20, 30, 40, 50]


def test_if_nothing_is_newer_the_next_version_is_the_newest(tree: Tree, client: Client) -> None:
    tree.publish_latest(b"50\n40\n")
    assert [client.server.next_version(installed) for installed in (50, 60)] == [50, 50]


def mirrored(directory: Path, *trees: Tree, **changes: Any) -> Client:
    first, *rest = [f"file://{tree.directory}" for tree in trees]
    mirrors = {"content_mirrors": tuple(rest), "version_mirrors": tuple(rest)}
    urls = {"content_url": first, "version_url": first}
    return Client(directory, trees[0], **urls | mirrors | changes)


@pytest.fixture
def other(tmp_path: Path, publisher: Publisher) -> Tree:
    """Another place where the same publisher's content is."""
    (tmp_path / "other").mkdir()
    return Tree(tmp_path / "other", publisher)


@pytest.mark.parametrize("wrong", ["missing", "unsigned", "forged", "nonsense"])
def test_a_version_comes_from_the_first_mirror_with_a_valid_signature(
    tmp_path: Path, tree: Tree, other: Tree, wrong: str
) -> None:
    if wrong != "missing":
        tree.publish_latest(b"30\n" if wrong != "nonsense" else b"<html>")
    if wrong == "unsigned":
        tree.path("version/format30/latest.sig").unlink()
    if wrong == "forged":
        tree.write("version/format30/latest", b"40\n")
    other.publish_latest(b"20\n")
    client = mirrored(tmp_path / "client", tree, other)
    assert client.server.latest_version() == 20
    assert ("Warning: " in client.err.getvalue()) == (wrong != "missing")


def test_if_no_mirror_has_a_valid_signature_the_last_one_is_blamed(tmp_path: Path, tree: Tree, other: Tree) -> None:
    for place in (tree, other):
        place.publish_latest(b"30\n")
        place.write("version/format30/latest", b"40\n")
    with pytest.raises(SignatureError, match="other"):
        mirrored(tmp_path / "client", tree, other).server.latest_version()


def test_a_damaged_manifest_is_fetched_again_from_another_mirror(tmp_path: Path, tree: Tree, other: Tree) -> None:
    for place in (tree, other):
        place.publish_mom(10, place.publish_bundle(10, "os-core"))
    tree.path("10/Manifest.os-core.tar").write_bytes(b"damaged")
    client = mirrored(tmp_path / "client", tree, other)
    assert client.server.bundle(client.server.mom(10), "os-core").version == 10


# -- offline ---------------------------------------------------------------------------------------------------------


def test_offline_the_latest_version_is_the_newest_that_is_cached(tmp_path: Path, tree: Tree, client: Client) -> None:
    for version in (10, 20):
        tree.publish_mom(version, tree.publish_bundle(version, "os-core"))
        client.server.mom(version)
    tree.publish_latest(b"30\n")
    offline = Client(tmp_path / "client", tree, offline=True)
    assert offline.server.latest_version() == 20
    assert offline.server.next_version(10) == 20
    assert offline.fetcher.requests == 0


def test_offline_a_cached_version_of_another_format_or_without_a_valid_signature_is_not_the_latest(
    tmp_path: Path, tree: Tree, client: Client
) -> None:
    for version in (10, 20):
        tree.publish_mom(version, tree.publish_bundle(version, "os-core"))
        client.server.mom(version)
    client.statedir.write_manifest(20, "Manifest.MoM", b"forged")
    assert Client(tmp_path / "client", tree, offline=True).server.latest_version() == 10
    with pytest.raises(ServerError, match="no version of format 31"):
        Client(tmp_path / "client", tree, offline=True, format="31").server.latest_version()


def test_offline_what_is_not_cached_is_an_error_that_says_so(tmp_path: Path, tree: Tree, client: Client) -> None:
    tree.publish_mom(10, tree.publish_bundle(10, "os-core"))
    tree.publish_latest(b"10\n")
    offline = Client(tmp_path / "client", tree, offline=True)
    with pytest.raises(ServerError, match="--offline"):
        offline.server.latest_version()
    with pytest.raises(ServerError, match="--offline"):
        offline.server.latest_overall()
    with pytest.raises(MomError, match="--offline"):
        offline.server.mom(10)
    mom = client.server.mom(10)
    with pytest.raises(DownloadError, match="--offline"):
        offline.server.bundle(mom, "os-core")


def test_the_format_of_a_version_can_be_asked_for(tree: Tree, client: Client) -> None:
    tree.write("20/format", b"31\n")
    assert client.server.format_of(20) == "31"
    tree.write("30/format", b"<html>")
    with pytest.raises(ServerError, match="30/format"):
        client.server.format_of(30)


# -- the manifest of manifests ---------------------------------------------------------------------------------------


def test_a_mom_is_fetched_once_and_then_cached(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"))
    assert names(client.server.mom(20)) == ["os-core"]
    assert client.asked() == ["20/Manifest.MoM.tar"]
    assert client.server.mom(20).version == 20
    assert client.asked() == []
    cached = client.statedir.manifests(20)
    assert {path.name for path in cached.iterdir()} == {"Manifest.MoM", "Manifest.MoM.sig"}


def test_a_signature_beside_the_mom_is_as_good_as_one_inside(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"), signed_inside=False)
    client.server.mom(20)
    assert client.asked() == ["20/Manifest.MoM.tar", "20/Manifest.MoM.sig"]


def test_a_bad_signature_inside_is_forgiven_if_the_one_beside_is_good(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"))
    inside = {"Manifest.MoM": tree.manifests[20, "MoM"], "Manifest.MoM.sig": tree.publisher.sign(b"other")}
    tree.write("20/Manifest.MoM.tar", pack(inside))
    assert client.server.mom(20).version == 20


def forge(tree: Tree, version: int) -> None:
    """Publish a changed MoM with the signature of the right one."""
    right = tree.manifests[version, "MoM"]
    wrong = right.replace(b"os-core", b"os-evil")
    der = tree.publisher.sign(right)
    tree.write(f"{version}/Manifest.MoM.tar", pack({"Manifest.MoM": wrong, "Manifest.MoM.sig": der}))


def test_a_forged_mom_is_refused_after_a_second_look(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"))
    forge(tree, 20)
    with pytest.raises(SignatureError, match="version 20"):
        client.server.mom(20)
    assert client.asked().count("20/Manifest.MoM.tar") == 2
    assert not (client.statedir.manifests(20) / "Manifest.MoM").exists()


def test_an_unsigned_mom_is_refused(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"), signed_inside=False)
    tree.path("20/Manifest.MoM.sig").unlink()
    with pytest.raises(SignatureError, match="has no signature"):
        client.server.mom(20)


def test_without_checks_an_unsigned_mom_is_used_with_a_warning(tmp_path: Path, tree: Tree) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"), signed_inside=False)
    tree.path("20/Manifest.MoM.sig").unlink()
    client = Client(tmp_path / "client", tree, check_signatures=False, check_latest_signature=False)
    assert client.server.mom(20).version == 20
    assert "20/Manifest.MoM.tar" in client.err.getvalue()
    assert client.asked() == ["20/Manifest.MoM.tar"]


def test_a_cached_mom_that_was_changed_is_fetched_again(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"))
    client.server.mom(20)
    client.asked()
    data = client.statedir.read_manifest(20, "Manifest.MoM")
    assert data
    client.statedir.write_manifest(20, "Manifest.MoM", data.replace(b"os-core", b"os-evil"))
    assert names(client.server.mom(20)) == ["os-core"]
    assert client.asked() == ["20/Manifest.MoM.sig", "20/Manifest.MoM.tar"]
    assert client.statedir.read_manifest(20, "Manifest.MoM") == data


def test_a_cached_mom_that_is_garbage_is_fetched_again(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"))
    client.statedir.write_manifest(20, "Manifest.MoM", b"garbage")
    assert client.server.mom(20).version == 20


def test_a_mom_of_another_version_is_refused(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "os-core"), claimed=30)
    with pytest.raises(MomError, match="version 30 where version 20"):
        client.server.mom(20)


@pytest.mark.parametrize("content", [b"", b"not an archive", pack({"Manifest.MoM": b"MANIFEST\tx\n"})])
def test_a_mom_that_cannot_be_read_is_refused(tree: Tree, client: Client, content: bytes) -> None:
    tree.write("20/Manifest.MoM.tar", content)
    with pytest.raises(MomError) as caught:
        client.server.mom(20)
    assert caught.value.exit_code == 4
    assert client.asked().count("20/Manifest.MoM.tar") == 2


def test_a_mom_that_the_server_does_not_have_is_asked_for_once(tree: Tree, client: Client) -> None:
    with pytest.raises(MomError, match="version 20"):
        client.server.mom(20)
    assert client.asked() == ["20/Manifest.MoM.tar"]


# -- bundles ---------------------------------------------------------------------------------------------------------


def test_a_bundle_comes_from_the_version_that_the_mom_names(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(10, "editors"))
    manifest = client.server.bundle(client.server.mom(20), "editors")
    assert (manifest.version, len(manifest.entries)) == (10, 3)
    assert "10/Manifest.editors.tar" in client.asked()


def test_a_bundle_is_fetched_once_and_then_cached(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    mom = client.server.mom(20)
    first = client.server.bundle(mom, "editors")
    client.asked()
    assert client.server.bundle(mom, "editors") == first
    assert client.asked() == []
    assert list(client.statedir.download.iterdir()) == []


def test_a_cached_bundle_that_was_changed_is_fetched_again(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    mom = client.server.mom(20)
    right = client.server.bundle(mom, "editors")
    cached = client.statedir.manifests(20) / "Manifest.editors"
    cached.write_bytes(cached.read_bytes().replace(b"/usr/editors/0", b"/usr/editors/9"))
    assert client.server.bundle(mom, "editors") == right


def test_a_cached_bundle_counts_whatever_its_mode_on_the_disk(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    mom = client.server.mom(20)
    client.server.bundle(mom, "editors")
    (client.statedir.manifests(20) / "Manifest.editors").chmod(0o600)
    client.asked()
    client.server.bundle(mom, "editors")
    assert client.asked() == []


def test_a_bundle_with_another_hash_is_fetched_twice_and_then_named(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    tree.publish_bundle(20, "editors", files=4)
    mom = client.server.mom(20)
    client.asked()
    with pytest.raises(ManifestError, match=r"bundle editors \(.*20/Manifest.editors.tar\)") as caught:
        client.server.bundle(mom, "editors")
    assert caught.value.exit_code == 14
    assert client.asked() == ["20/Manifest.editors.tar"] * 2
    assert list(client.statedir.download.iterdir()) == []
    assert not (client.statedir.manifests(20) / "Manifest.editors").exists()


def test_a_bundle_that_claims_another_version_is_refused(tree: Tree, client: Client) -> None:
    data = serialise(make_manifest(10, (Entry.present(FileType.FILE, SOME_HASH, 10, "/usr/a"),)), name="editors")
    tree.publish_mom(20, tree.publish_manifest(20, "editors", data))
    with pytest.raises(ManifestError, match="of version 10 instead of 20"):
        client.server.bundle(client.server.mom(20), "editors")


def test_an_archive_that_cannot_be_read_is_refused(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    tree.write("20/Manifest.editors.tar", b"nonsense")
    with pytest.raises(ManifestError, match="editors"):
        client.server.bundle(client.server.mom(20), "editors")


def test_a_bundle_that_the_server_does_not_have_is_a_failed_download(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    tree.path("20/Manifest.editors.tar").unlink()
    with pytest.raises(NotOnServerError, match="/20/Manifest"):
        client.server.bundle(client.server.mom(20), "editors")


def test_a_bundle_that_the_mom_does_not_have_is_unknown(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, tree.publish_bundle(20, "editors"))
    with pytest.raises(UnknownBundleError, match="no bundle games in version 20") as caught:
        client.server.bundle(client.server.mom(20), "games")
    assert "bundle-list" in caught.value.hint


def test_many_bundles_come_in_the_order_of_their_names(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, *(tree.publish_bundle(20, f"b{n}") for n in range(30)))
    wanted = [f"b{n}" for n in reversed(range(30))]
    assert list(client.server.bundles(client.server.mom(20), wanted)) == wanted


def test_each_bundle_is_visited_and_those_that_cannot_be_had_are_named(tree: Tree, client: Client) -> None:
    tree.publish_mom(20, *(tree.publish_bundle(20, name) for name in ("cached", "fetched", "missing", "broken")))
    mom = client.server.mom(20)
    client.server.bundle(mom, "cached")
    tree.path("20/Manifest.missing.tar").unlink()
    tree.publish_bundle(20, "broken", files=4)
    visited: dict[str, Manifest] = {}
    failures = client.server.each_bundle(mom, names(mom), visited.__setitem__)
    assert {name: len(manifest.entries) for name, manifest in visited.items()} == {"cached": 3, "fetched": 3}
    assert {name: type(error) for name, error in failures.items()} == {
        "missing": NotOnServerError,
        "broken": ManifestError,
    }


def test_variants_are_chosen_for_the_machine(tmp_path: Path, tree: Tree) -> None:
    lines = "".join(f"F.{letter}.\t{digit * 64}\t20\t/usr/bin/tool\n" for letter, digit in (("a", "1"), ("e", "2")))
    header = "MANIFEST\t30\nversion:\t20\nprevious:\t0\nfilecount:\t2\ntimestamp:\t1\ncontentsize:\t1\n\n"
    tree.publish_mom(20, tree.publish_manifest(20, "editors", (header + lines).encode()))
    for levels, digit in ((frozenset({Level.SSE}), "1"), (frozenset({Level.SSE, Level.AVX2}), "2")):
        client = Client(tmp_path / f"client{digit}", tree, levels=levels)
        manifest = client.server.bundle(client.server.mom(20), "editors")
        assert [entry.hash for entry in manifest.entries] == [digit * 64]


# -- deltas ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def updated(tree: Tree, client: Client) -> tuple[Manifest, Manifest]:
    """The MoMs of versions 10 and 20; the bundle of 10 is cached, and there is a delta to that of 20."""
    tree.publish_mom(10, tree.publish_bundle(10, "editors", files=200))
    tree.publish_mom(20, tree.publish_bundle(20, "editors", files=201))
    tree.publish_delta(20, "editors", 10)
    before, after = client.server.mom(10), client.server.mom(20)
    client.server.bundle(before, "editors")
    client.asked()
    return before, after


DELTA = "20/Manifest-editors-delta-from-10"
WHOLE = "20/Manifest.editors.tar"


def test_a_delta_is_enough(tree: Tree, client: Client, updated: tuple[Manifest, Manifest]) -> None:
    tree.path(WHOLE).unlink()
    manifest = client.server.bundle(updated[1], "editors", previous=updated[0])
    assert len(manifest.entries) == 201
    assert client.asked()[0] == DELTA
    assert list(client.statedir.download.iterdir()) == []


def test_a_missing_delta_does_not_matter(tree: Tree, client: Client, updated: tuple[Manifest, Manifest]) -> None:
    tree.path(DELTA).unlink()
    assert len(client.server.bundle(updated[1], "editors", previous=updated[0]).entries) == 201
    assert client.asked() == [DELTA, WHOLE]


def test_a_damaged_delta_does_not_matter(tree: Tree, client: Client, updated: tuple[Manifest, Manifest]) -> None:
    tree.write(DELTA, b"FULLV20U")
    assert len(client.server.bundle(updated[1], "editors", previous=updated[0]).entries) == 201
    assert client.asked() == [DELTA, WHOLE]


def test_a_delta_from_a_damaged_manifest_does_not_matter(client: Client, updated: tuple[Manifest, Manifest]) -> None:
    cached = client.statedir.manifests(10) / "Manifest.editors"
    cached.write_bytes(cached.read_bytes().replace(b"/usr/editors/1", b"/usr/editors/X"))
    assert len(client.server.bundle(updated[1], "editors", previous=updated[0]).entries) == 201
    assert client.asked() == [DELTA, WHOLE]


def test_without_the_older_manifest_no_delta_is_asked_for(client: Client, updated: tuple[Manifest, Manifest]) -> None:
    client.statedir.drop_manifest(10, "Manifest.editors")
    client.server.bundle(updated[1], "editors", previous=updated[0])
    assert client.asked() == [WHOLE]


def test_no_delta_leads_to_an_older_version(client: Client, updated: tuple[Manifest, Manifest]) -> None:
    client.statedir.drop_manifest(10, "Manifest.editors")
    client.server.bundle(updated[1], "editors")
    client.asked()
    client.server.bundle(updated[0], "editors", previous=updated[1])
    assert client.asked() == ["10/Manifest.editors.tar"]


# -- closure ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mom(tree: Tree, client: Client) -> Manifest:
    tree.publish_mom(
        20,
        tree.publish_bundle(20, "os-core"),
        tree.publish_bundle(20, "libs", ("os-core",)),
        tree.publish_bundle(20, "editors", ("os-core", "libs"), ("docs", "not-published")),
        tree.publish_bundle(20, "docs", ("os-core",)),
        tree.publish_bundle(20, "broken", ("os-core", "gone")),
        tree.publish_bundle(20, "left", ("right",)),
        tree.publish_bundle(20, "right", ("left",)),
    )
    return client.server.mom(20)


def test_a_closure_follows_includes(client: Client, mom: Manifest) -> None:
    found = client.server.closure(mom, ["editors"], optional=False)
    assert set(found) == {"editors", "libs", "os-core"}
    assert found["libs"].includes == ("os-core",)


def test_a_closure_follows_optional_bundles_that_exist(client: Client, mom: Manifest) -> None:
    assert set(client.server.closure(mom, ["editors"], optional=True)) == {"editors", "libs", "os-core", "docs"}


def test_a_closure_stops_at_what_is_skipped(client: Client, mom: Manifest) -> None:
    found = client.server.closure(mom, ["editors", "os-core"], optional=False, skip={"libs", "os-core"})
    assert set(found) == {"editors"}


def test_a_closure_ends_in_a_circle(client: Client, mom: Manifest) -> None:
    assert set(client.server.closure(mom, ["left"], optional=False)) == {"left", "right"}


@pytest.mark.parametrize("name", ["unknown", "broken"])
def test_an_unknown_bundle_in_a_closure_is_an_error(client: Client, mom: Manifest, name: str) -> None:
    with pytest.raises(UnknownBundleError):
        client.server.closure(mom, [name], optional=False)


def test_unknown_bundles_in_a_closure_can_be_ignored(client: Client, mom: Manifest) -> None:
    found = client.server.closure(mom, ["unknown", "broken"], optional=False, ignore_unknown=True)
    assert set(found) == {"broken", "os-core"}


def test_an_empty_closure_is_empty(client: Client, mom: Manifest) -> None:
    assert client.server.closure(mom, [], optional=True) == {}


def test_a_failed_download_in_a_closure_is_an_error(tree: Tree, client: Client, mom: Manifest) -> None:
    tree.path("20/Manifest.libs.tar").unlink()
    with pytest.raises(DownloadError, match="libs"):
        client.server.closure(mom, ["editors"], optional=False)


# -- the ways to a version -------------------------------------------------------------------------------------------

INDEX = UpdateIndex(20, (Update(10, None, {"os-core": BundleCost(10, 5, 6)}),))


def test_an_update_index_is_fetched_with_its_signature(tree: Tree, client: Client) -> None:
    tree.publish_index(20, INDEX)
    assert client.server.update_index(20) == INDEX
    assert client.asked() == ["20/update-index", "20/update-index.sig"]


def test_a_version_without_an_update_index_is_asked_once(tree: Tree, client: Client) -> None:
    assert client.server.update_index(20) is None
    assert client.asked() == ["20/update-index"]
    assert "there is no update index of version 20" in client.out.getvalue()
    assert client.err.getvalue() == ""


@pytest.mark.parametrize("wrong", ["changed", "unsigned", "no signature", "too large"])
def test_an_update_index_that_is_not_the_publishers_is_not_used(tree: Tree, client: Client, wrong: str) -> None:
    tree.publish_index(20, INDEX)
    path = tree.path("20/update-index")
    if wrong == "changed":
        path.write_bytes(path.read_bytes().replace(b"5", b"4"))
    elif wrong == "unsigned":
        tree.path("20/update-index.sig").unlink()
    elif wrong == "no signature":
        tree.write("20/update-index.sig", b"noise")
    else:
        path.write_bytes(b" " * (updateindex.INDEX_BYTES_LIMIT + 1))
    assert client.server.update_index(20) is None
    assert "20/update-index" in client.out.getvalue()


def test_a_signed_index_that_is_none_or_of_another_version_is_not_used(tree: Tree, client: Client) -> None:
    tree.publish_index(30, INDEX)
    assert client.server.update_index(30) is None
    assert "it is the one of version 20" in client.out.getvalue()
    tree.write("40/update-index", b"{}")
    tree.write("40/update-index.sig", tree.publisher.sign(b"{}"))
    assert client.server.update_index(40) is None
    assert "no 'format'" in client.out.getvalue()


def test_without_checks_an_unsigned_index_is_used_with_a_warning(tmp_path: Path, tree: Tree) -> None:
    tree.write("20/update-index", updateindex.serialise(INDEX))
    client = Client(tmp_path / "client", tree, check_signatures=False)
    assert client.server.update_index(20) == INDEX
    assert client.asked() == ["20/update-index"]
    assert "20/update-index is not checked" in client.err.getvalue()


# -- the copy for the shell completion -------------------------------------------------------------------------------


def test_the_mom_is_copied_for_ordinary_users(tmp_path: Path, client: Client, mom: Manifest) -> None:
    (tmp_path / "root/var/tmp").mkdir(parents=True)
    client.server.copy_mom(20, tmp_path / "root")
    client.server.copy_mom(20, tmp_path / "root")
    copy = tmp_path / "root/var/tmp/swupd/Manifest.MoM"
    assert copy.read_bytes() == client.statedir.read_manifest(20, "Manifest.MoM")
    assert copy.stat().st_mode & 0o777 == 0o644


def test_a_directory_that_others_prepared_is_not_written_to(tmp_path: Path, client: Client, mom: Manifest) -> None:
    (tmp_path / "root/var/tmp").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "root/var/tmp/swupd").symlink_to(tmp_path / "victim")
    client.server.copy_mom(20, tmp_path / "root")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_root_without_var_tmp_gets_no_copy(tmp_path: Path, client: Client, mom: Manifest) -> None:
    (tmp_path / "root").mkdir()
    client.server.copy_mom(20, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
