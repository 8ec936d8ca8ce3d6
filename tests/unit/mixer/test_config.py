"""builder.yaml: values, defaults, and complaints with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.config import AptSource, Config, Mirror, TreeSource, load, parse
from mixer.errors import ConfigError, WorkspaceError
from mixer.located import Origin, decode
from mixer.workspace import Workspace

APT = "source: {type: apt, suites: [bookworm]}\n"
BASE = Path("/mix")
ORIGIN = Origin("builder.yaml", ConfigError)


def config(text: str, environ: Mapping[str, str] | None = None) -> Config:
    return parse(text, BASE, environ or {}, ORIGIN)


def apt(text: str) -> AptSource:
    source = config(text).source
    assert isinstance(source, AptSource)
    return source


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return caught.value


def test_only_the_source_has_to_be_given() -> None:
    assert config(APT) == Config(
        source=AptSource(
            suites=("bookworm",),
            components=("main",),
            mirrors=(),
            keyring=None,
            architecture="",
            path_excludes=(),
            ids=BASE / "ids.txt",
        ),
        bundle_directories=(),
        update_bundle="os-core-update",
        content_url="",
        version_url="",
        published="",
        certificate=BASE / "Swupd_Root.pem",
        key=BASE / "private.pem",
        os_release={},
        stateless="off",
        updater=False,
        root_password=None,
        setuid=(),
        workers=0,
        engine="",
    )


def test_a_mix_can_be_a_stateless_system_that_updates_itself() -> None:
    values = config(APT + "stateless: convert\nupdater: true\nroot_password: hash\nsetuid: [/usr/bin/x]\n")
    assert values.stateless == "convert"
    assert values.updater
    assert values.root_password == BASE / "hash"
    assert values.setuid == ("/usr/bin/x",)


def test_prepared_roots_can_be_rejected_but_not_converted() -> None:
    tree = "source: {type: tree, path: x}\n"
    assert config(tree + "stateless: reject\n").stateless == "reject"
    error = refused(tree + "stateless: convert\n")
    assert "line 2: prepared roots are not converted" in str(error)
    assert "reject" in error.hint


def test_every_key_is_read() -> None:
    text = """\
source:
  type: apt
  suites: [bookworm, bookworm-security]
  components: [main, contrib]
  mirrors:
    - https://mirror.example.org/debian/
    - {uri: "http://security.example.org/debian", suites: [bookworm-security]}
  keyring: keys/archive.gpg
  architecture: arm64
  path_excludes: [/usr/share/man/*]
  ids: /srv/ids
bundles: [../bundles, /srv/bundles]
update_bundle: updater
content_url: https://update.example.org/mix/
version_url: https://version.example.org
published: s3://bucket/mix/
certificate: keys/root.pem
key: /srv/key.pem
os_release: {NAME: Example OS, ID: example}
workers: 4
engine: {dask: "tcp://scheduler.example.org:8786"}
"""
    assert config(text) == Config(
        source=AptSource(
            suites=("bookworm", "bookworm-security"),
            components=("main", "contrib"),
            mirrors=(
                Mirror("https://mirror.example.org/debian"),
                Mirror("http://security.example.org/debian", ("bookworm-security",)),
            ),
            keyring=BASE / "keys/archive.gpg",
            architecture="arm64",
            path_excludes=("/usr/share/man/*",),
            ids=Path("/srv/ids"),
        ),
        bundle_directories=(BASE / "../bundles", Path("/srv/bundles")),
        update_bundle="updater",
        content_url="https://update.example.org/mix",
        version_url="https://version.example.org",
        published="s3://bucket/mix",
        certificate=BASE / "keys/root.pem",
        key=Path("/srv/key.pem"),
        os_release={"NAME": "Example OS", "ID": "example"},
        workers=4,
        engine="tcp://scheduler.example.org:8786",
    )


def test_prepared_roots_have_a_path() -> None:
    assert config("source: {type: tree, path: roots}\n").source == TreeSource(BASE / "roots")


def test_the_version_url_is_the_content_url_unless_given() -> None:
    assert config(APT + "content_url: https://update.example.org\n").version_url == "https://update.example.org"


def test_the_key_lies_beside_the_certificate_unless_given() -> None:
    assert config(APT + "certificate: keys/root.pem\n").key == BASE / "keys/private.pem"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("s3://mix", "s3://mix"),
        ("s3://mix.example.org/os/x86_64/", "s3://mix.example.org/os/x86_64"),
        ("/srv/www", "/srv/www"),
        ("www", "/mix/www"),
        ("../a:b", "/mix/../a:b"),
        ("$WHERE/mix", "s3://bucket/mix"),
    ],
)
def test_a_tree_is_published_in_an_object_store_or_a_directory(value: str, place: str) -> None:
    assert config(f"{APT}published: {value}\n", {"WHERE": "s3://bucket"}).published == place


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gs://bucket/mix", "published cannot be a URL of the kind gs://"),
        ("https://mix.example.org", "published cannot be a URL of the kind https://"),
        ("file:/srv/www", "published cannot be a URL of the kind file://"),
        ("s3://", "published must be s3://bucket/path"),
        ("s3:/bucket/mix", "published must be s3://bucket/path"),
        ("s3://Bucket", "published must be s3://bucket/path"),
        ("s3://bucket/../mix", "published must be s3://bucket/path"),
        ("s3://bucket/.mix", "published must be s3://bucket/path"),
        ("s3://bucket//mix", "published must be s3://bucket/path"),
        ("s3://key:secret@bucket", "published must be s3://bucket/path"),
    ],
)
def test_other_places_are_refused_without_repeating_what_may_be_secret(value: str, message: str) -> None:
    error = refused(f"{APT}published: {value}\n")

    assert str(error).startswith(f"builder.yaml: line 2: {message}")
    assert "secret" not in f"{error} {error.hint}"
    assert "s3://" in str(error) or "s3://" in error.hint


def test_a_mirror_without_suites_serves_those_that_no_other_one_names() -> None:
    source = apt(
        "source: {type: apt, suites: [a, b, c], mirrors: [https://one.example.org, https://two.example.org,"
        " {uri: 'https://b.example.org', suites: [b]}]}"
    )
    assert source.uris("a") == ("https://one.example.org", "https://two.example.org")
    assert source.uris("b") == ("https://b.example.org",)


def test_without_mirrors_the_host_decides() -> None:
    assert apt(APT).uris("bookworm") == ()


def test_strings_expand_variables() -> None:
    text = APT + 'content_url: https://$HOST/${NAME}$$x\ncertificate: "${NAME}.pem"\n'
    values = config(text, {"HOST": "update.example.org", "NAME": "mix"})
    assert values.content_url == "https://update.example.org/mix$x"
    assert values.certificate == BASE / "mix.pem"


def test_an_undefined_variable_is_an_error() -> None:
    error = refused(APT + "content_url: https://$HOST\n")
    assert str(error) == "builder.yaml: line 2: the variable HOST is not set"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: source is missing"),
        ("source: apt\n", "line 1: source must be a mapping (key: value), not apt"),
        ("source: {suites: [bookworm]}\n", "line 1: source has no type"),
        ("source: {type: dnf}\n", "line 1: source.type cannot be dnf"),
        ("source: {type: apt}\n", "line 1: source has no suites"),
        ("source: {type: apt, suites: []}\n", "line 1: source.suites is empty"),
        ("source: {type: apt, suites: [a, a]}\n", "line 1: source.suites names something twice"),
        ("source: {type: apt, suites: bookworm}\n", "line 1: source.suites must be a list, not bookworm"),
        ("source:\n  type: apt\n  suites: ['a b']\n", "line 3: an item of source.suites must be a plain word"),
        ("source: {type: tree}\n", "line 1: source has no path"),
        ("source:\n  type: tree\n  path: x\n  suites: [a]\n", "line 4: unknown key suites"),
        ("source:\n  type: apt\n  suites: [a]\n  path: x\n", "line 4: unknown key path"),
        ("source:\n  type: apt\n  suites: [a]\n  path_excludes: [doc]\n", "line 4: a pattern of path_excludes"),
        ("source:\n  type: apt\n  suites: [a]\n  architecture: ../x\n", "line 4: source.architecture must be"),
        ("source:\n  type: apt\n  suites: [a]\n  mirrors: ['https://x [trusted=yes]']\n", "line 4: an item of"),
        ("source:\n  type: apt\n  suites: [a]\n  mirrors: [{suites: [a]}]\n", "line 4: a mirror has no uri"),
        (APT + "certificat: x\n", "line 2: unknown key certificat"),
        (APT + "certificate: ''\n", "line 2: certificate is empty"),
        (APT + "content_url: update.example.org\n", "line 2: content_url must be a URL"),
        (APT + "content_url: $\n", "line 2: a $ without a variable's name"),
        (APT + "update_bundle: MoM\n", "line 2: MoM is no name for a bundle"),
        (APT + "bundles: ../bundles\n", "line 2: bundles must be a list"),
        (APT + "stateless: yes\n", "line 2: stateless cannot be yes"),
        (APT + "updater: 1\n", "line 2: updater cannot be 1"),
        ("source: {type: tree, path: x}\nupdater: true\n", "line 2: nothing is added to prepared roots"),
        (APT + "root_password: hash\n", "line 2: root_password needs stateless: convert"),
        (APT + "stateless: convert\nsetuid: [su]\n", "line 3: a path of setuid must begin with /"),
        (APT + "workers: -1\n", "line 2: workers is -1; it must be between 0 and 1024"),
        (APT + "workers: many\n", "line 2: workers must be a whole number, not many"),
        (APT + "engine: tcp://10.0.0.1:8786\n", "line 2: engine must be a mapping"),
        (APT + "engine: {}\n", "line 2: engine has no dask"),
        (APT + "engine:\n  ray: tcp://10.0.0.1:8786\n", "line 3: unknown key ray"),
        (APT + "engine:\n  dask: 10.0.0.1:8786\n", "line 3: engine.dask must be the address of a Dask scheduler"),
        (APT + "engine:\n  dask: http://10.0.0.1:8786\n", "line 3: engine.dask must be the address"),
        (APT + "engine:\n  dask: tcp://10.0.0.1\n", "line 3: engine.dask must be the address"),
        (APT + "engine:\n  dask: tcp://10.0.0.1:65536\n", "line 3: engine.dask has no port between 1 and 65535"),
        (APT + "os_release: {VERSION_ID: 7}\n", "line 2: VERSION_ID is set by every build"),
        (APT + "os_release:\n  Name: x\n", "line 3: Name is no name for os-release"),
        (APT + 'os_release:\n  NAME: "a\\nb"\n', "line 3: os_release.NAME must be one line"),
        (APT + "source: {type: tree, path: x}\n", "line 2: source is given twice"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in str(refused(text))


def test_an_unknown_key_is_answered_with_the_nearest_one() -> None:
    assert refused(APT + "contenturl: https://x.example.org\n").hint == "did you mean content_url?"


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tls://a-b.example.org:1", "tcp://[2001:db8::1]:65535"])
def test_an_engine_is_the_address_of_a_scheduler(address: str) -> None:
    assert config(f"{APT}engine:\n  dask: '{address}'\n").engine == address


def test_a_suite_that_no_mirror_serves_is_an_error() -> None:
    text = "source: {type: apt, suites: [a, b], mirrors: [{uri: 'https://a.example.org', suites: [a]}]}"
    assert "no mirror serves the suite b" in str(refused(text))


def test_a_mirror_of_a_suite_that_is_not_used_is_an_error() -> None:
    text = "source: {type: apt, suites: [a], mirrors: [{uri: 'https://a.example.org', suites: [b]}]}"
    assert "names the suite b" in str(refused(text))


def test_the_configuration_of_a_workspace_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "builder.yaml").write_text("source: {type: tree, path: roots}\n")
    assert load(Workspace(tmp_path), {}).source == TreeSource(tmp_path / "roots")


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is not a workspace"):
        load(Workspace(tmp_path), {})


_TEXTS = st.text(alphabet="abc:/$[]{}, \n-'#~*", max_size=40)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        _TEXTS, _TEXTS.map(lambda value: f"{APT}content_url: {value}\nbundles: [{value}]\npublished: s3://{value}\n")
    )
)
def test_any_text_is_a_configuration_or_one_clear_error(text: str) -> None:
    message = "builder.yaml: "
    try:
        config(decode(text.encode(), ORIGIN))
    except ConfigError as error:
        message = str(error)
    assert message.startswith("builder.yaml: ")
    assert "\n" not in message
