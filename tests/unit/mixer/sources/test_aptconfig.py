"""The host's apt configuration, read for a mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixer.config import AptSource, Mirror
from mixer.errors import SourceError
from mixer.sources import aptconfig

SOURCES = """\
# a comment
Types: deb deb-src
URIs: https://deb.example.org/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {keyring}

Types: deb
URIs: https://other.example.org/
Suites: bookworm trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://off.example.org/
Suites: sid
Components: main
Enabled: no
"""
LIST = """\
deb [arch=amd64 signed-by={keyring}] https://security.example.org/debian-security bookworm-security main  # fixes
deb-src https://deb.example.org/debian sid main
deb https://flat.example.org/ ./
# deb https://off.example.org/debian sid main
"""


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    path = tmp_path / "keyring.gpg"
    path.write_text("keys")
    return path


@pytest.fixture
def host(tmp_path: Path, keyring: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(aptconfig, "DEFAULT_KEYRING", keyring)
    directory = tmp_path / "apt"
    (directory / "sources.list.d").mkdir(parents=True)
    (directory / "sources.list").write_text(LIST.format(keyring=keyring))
    (directory / "sources.list.d/debian.sources").write_text(SOURCES.format(keyring=keyring))
    (directory / "sources.list.d/old.sources.save").write_text(SOURCES)
    return directory


def config(*suites: str, components: tuple[str, ...] = ("main",), mirrors: tuple[Mirror, ...] = ()) -> AptSource:
    return AptSource(suites, components, mirrors, None, "", (), Path("/nowhere/ids.txt"))


def test_a_suite_is_taken_from_the_host(host: Path, keyring: Path) -> None:
    archives = aptconfig.archives(config("bookworm-updates", "bookworm-security"), host)
    assert [(archive.uri, archive.suite, archive.keyring) for archive in archives] == [
        ("https://deb.example.org/debian", "bookworm-updates", str(keyring)),
        ("https://security.example.org/debian-security", "bookworm-security", str(keyring)),
    ]


def test_the_distributions_own_entry_comes_before_another_vendors(host: Path) -> None:
    (host / "sources.list.d/a.list").write_text(
        "deb [signed-by=/usr/vendor.gpg] https://vendor.example.org bookworm main\n"
    )
    assert aptconfig.archives(config("bookworm"), host)[0].uri == "https://deb.example.org/debian"


def test_an_embedded_key_is_carried_over_whole(host: Path) -> None:
    stanza = aptconfig.archives(config("trixie"), host)[0].stanza()
    assert "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END" in stanza


@pytest.mark.parametrize(("suite", "components"), [("sid", ("main",)), ("bookworm", ("main", "non-free"))])
def test_a_suite_that_the_host_does_not_have_is_an_error_with_a_hint(
    host: Path, suite: str, components: tuple[str, ...]
) -> None:
    with pytest.raises(SourceError, match=f"no entry for the suite {suite} with the component") as caught:
        aptconfig.archives(config(suite, components=components), host)
    assert "mirrors" in caught.value.hint


def test_mirrors_of_the_configuration_replace_the_hosts(host: Path) -> None:
    mirrors = (Mirror("file:/srv/debian"), Mirror("https://sid.example.org/debian", ("sid",)))
    archives = aptconfig.archives(config("bookworm", "sid", mirrors=mirrors), host)
    assert [archive.uri for archive in archives] == ["file:/srv/debian", "https://sid.example.org/debian"]
    assert "URIs: copy:/srv/debian\n" in archives[0].stanza()


def test_a_keyring_that_does_not_exist_is_an_error(host: Path) -> None:
    (host / "sources.list").write_text("deb [signed-by=/nowhere/key.gpg] https://deb.example.org/debian sid main\n")
    with pytest.raises(SourceError, match=r"the keyring /nowhere/key\.gpg, which has to verify the suite sid"):
        aptconfig.archives(config("sid"), host)


def test_trust_without_a_signature_is_never_taken_over(host: Path, keyring: Path) -> None:
    (host / "sources.list").write_text("deb [trusted=yes allow-insecure=yes] https://deb.example.org/debian sid main\n")
    archive = aptconfig.archives(config("sid"), host)[0]
    assert archive.keyring == str(keyring)
    assert "trusted" not in archive.stanza().lower()


def test_settings_of_the_network_are_carried_over_and_no_others() -> None:
    dump = """\
APT::Architecture "amd64";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example.org:3128/";
Acquire::https::CaInfo "/etc/ssl/company.pem";
Acquire::AllowInsecureRepositories "1";
Acquire::httpish::Proxy "x";
Acquire::Check-Valid-Until "false";
DPkg::Pre-Invoke:: "rm -rf /";
"""
    assert aptconfig.carried_settings(dump) == [
        'Acquire::http::Proxy "http://proxy.example.org:3128/";',
        'Acquire::https::CaInfo "/etc/ssl/company.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_only_proxies_of_the_environment_reach_apt() -> None:
    environment = aptconfig.environment({"http_proxy": "http://p.example.org", "HOME": "/root", "LD_PRELOAD": "x.so"})
    assert environment["http_proxy"] == "http://p.example.org"
    assert environment.keys() == {"PATH", "LC_ALL", "DEBIAN_FRONTEND", "http_proxy"}
