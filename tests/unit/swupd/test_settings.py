"""What a command works with is decided from options, the system's files, the host's files and defaults."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import UsageError
from swupd.settings import MAX_MIRRORS, Settings, check_url, mirror_list, resolve

DEFAULTS = "usr/share/defaults/swupd"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def settings(root: Path, /, **options: Any) -> Settings:
    return resolve({"path": root, "statedir": root / "state"} | options, {})


def test_an_option_wins_over_the_files_of_the_system(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/contenturl", "https://vendor.example.org/update\n")
    assert settings(tmp_path, contenturl="https://example.org/x").content_url == "https://example.org/x"


def test_a_url_option_sets_both_urls(tmp_path: Path) -> None:
    found = settings(tmp_path, url="https://example.org/update")
    assert found.content_url == found.version_url == "https://example.org/update"


def test_a_specific_url_option_wins_over_the_general_one(tmp_path: Path) -> None:
    found = settings(tmp_path, url="https://example.org/a", versionurl="https://example.org/b")
    assert (found.content_url, found.version_url) == ("https://example.org/a", "https://example.org/b")


def test_an_overridden_url_is_worth_a_warning(tmp_path: Path) -> None:
    (warning,) = settings(tmp_path, url="https://example.org/update").warnings
    assert "https://example.org/update" in warning


def test_a_mirror_wins_over_the_vendor(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/versionurl", "https://vendor.example.org")
    write(tmp_path, "etc/swupd/mirror_versionurl", "https://mirror.example.org")
    assert settings(tmp_path).version_url == "https://mirror.example.org"


def test_only_the_first_line_of_a_url_file_counts_and_slashes_at_its_end_do_not(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/contenturl", "  https://example.org/update// \nhttps://example.org/other\n")
    assert settings(tmp_path).content_url == "https://example.org/update"


def test_a_percent_sign_in_a_url_is_kept_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/contenturl", "https://example.org/a%20b%s\n")
    assert settings(tmp_path).content_url == "https://example.org/a%20b%s"


@pytest.mark.parametrize(
    "text",
    [
        "example.org",
        "ftp://example.org/x",
        "https://",
        "file:///",
        "https://a.example.org/?x=1",
        "https://a\x07b",
        "https://[::1",
        "https://a:x",
        "https://:80",
        "file://host/x",
    ],
)
def test_what_is_no_usable_url_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        settings(tmp_path, url=text)


def test_a_bad_url_in_a_file_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/contenturl", "nonsense\n")
    with pytest.raises(UsageError, match=str(tmp_path / DEFAULTS / "contenturl")):
        settings(tmp_path)


def test_unknown_urls_are_only_an_error_for_those_who_need_them(tmp_path: Path) -> None:
    found = settings(tmp_path, contenturl="https://example.org/update")
    if found.version_url:
        pytest.skip("this host has a version URL of its own")
    with pytest.raises(UsageError, match="version URL") as caught:
        found.require_urls()
    assert "--versionurl" in caught.value.hint


def test_the_format_comes_from_the_system(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/format", "30\n")
    assert settings(tmp_path).format == "30"


def test_a_format_option_wins_over_the_system(tmp_path: Path) -> None:
    write(tmp_path, f"{DEFAULTS}/format", "30\n")
    assert settings(tmp_path, format="staging").format == "staging"


@pytest.mark.parametrize("text", ["0", "-1", "thirty", "1.5", "٣", "9" * 30])
def test_a_format_that_is_no_positive_number_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, f"{DEFAULTS}/format", text)
    with pytest.raises(UsageError, match="is not a format"):
        settings(tmp_path)


def test_without_any_file_the_first_format_is_assumed(tmp_path: Path) -> None:
    assert settings(tmp_path).format == "30"


def test_a_link_to_the_root_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve({"path": tmp_path / "link"}, {}).root == tmp_path / "real"


def test_data_lies_in_the_root_and_the_cache_on_the_host(tmp_path: Path) -> None:
    found = resolve({"path": tmp_path}, {})
    assert found.data_dir == tmp_path / "var/lib/swupd"
    assert found.cache_dir == Path("/var/lib/swupd")


def test_cache_and_data_can_be_given_apart(tmp_path: Path) -> None:
    found = settings(tmp_path, cachedir=tmp_path / "c", datadir=tmp_path / "d")
    assert (found.cache_dir, found.data_dir) == (tmp_path / "c", tmp_path / "d")


@pytest.mark.parametrize("path", ["/", "/var", "/usr", "/usr/../var/"])
def test_a_top_directory_is_refused_as_state_directory(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be a state directory"):
        resolve({"statedir": path}, {})


@pytest.mark.parametrize("name", [".", "var", "usr", "link"])
def test_the_root_and_its_top_directories_are_refused_as_state_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(".")
    with pytest.raises(UsageError, match="cannot be a state directory"):
        settings(tmp_path, statedir=tmp_path / name)


def test_a_relative_state_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an absolute path"):
        settings(tmp_path, statedir="state")


def test_the_certificate_is_the_hosts_unless_given(tmp_path: Path) -> None:
    write(tmp_path, "usr/share/clear/update-ca/Swupd_Root.pem", "not trusted just because it lies there")
    assert settings(tmp_path).certificate == Path("/usr/share/clear/update-ca/Swupd_Root.pem")
    assert settings(tmp_path, certpath=tmp_path / "c.pem").certificate == tmp_path / "c.pem"


def test_without_signature_checks_the_latest_version_is_not_checked_either(tmp_path: Path) -> None:
    assert not settings(tmp_path, nosigcheck=True).check_latest_signature


def test_the_check_of_the_latest_version_can_be_switched_off_alone(tmp_path: Path) -> None:
    found = settings(tmp_path, nosigcheck_latest=True)
    assert (found.check_signatures, found.check_latest_signature) == (True, False)


def test_options_that_were_not_given_leave_the_defaults(tmp_path: Path) -> None:
    found = settings(tmp_path, max_retries=None, retry_delay=None, max_parallel_downloads=None, assume=None)
    assert (found.max_retries, found.retry_delay, found.parallel, found.assume) == (3, 10, 15, None)


def test_zero_retries_are_not_mistaken_for_the_default(tmp_path: Path) -> None:
    assert settings(tmp_path, max_retries=0).max_retries == 0


def test_very_many_parallel_downloads_are_cut_to_what_makes_sense(tmp_path: Path) -> None:
    assert settings(tmp_path, max_parallel_downloads=1000).parallel == 64


def test_a_number_out_of_its_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--retry-delay"):
        settings(tmp_path, retry_delay=61)


def test_fallback_certificate_stores_come_from_the_environment() -> None:
    found = resolve({}, {"SWUPD_FALLBACK_CAPATHS": "/a:/b/c:"})
    assert found.fallback_ca_paths == (Path("/a"), Path("/b/c"))


# -- mirrors, limits and being offline -------------------------------------------------------------------------------

MIRROR_FILE = "etc/swupd/mirror_contenturl"


def test_a_mirror_file_may_have_several_lines_of_which_the_first_is_preferred(tmp_path: Path) -> None:
    text = "https://a.example.org/x\n# the slow one\n\n  https://b.example.org/ \nfile:///srv/c"
    write(tmp_path, MIRROR_FILE, text)
    found = settings(tmp_path)
    assert found.content_url == "https://a.example.org/x"
    assert found.content_mirrors == ("https://b.example.org", "file:///srv/c")
    assert found.version_mirrors == ()


def test_a_mirror_file_with_an_empty_first_line_counts_as_none(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "\nhttps://a.example.org\n")
    write(tmp_path, f"{DEFAULTS}/contenturl", "https://vendor.example.org\n")
    found = settings(tmp_path)
    assert (found.content_url, found.content_mirrors) == ("https://vendor.example.org", ())


def test_the_vendors_server_is_no_mirror_of_a_configured_one(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "https://a.example.org")
    write(tmp_path, f"{DEFAULTS}/contenturl", "https://vendor.example.org\n")
    assert settings(tmp_path).content_mirrors == ()


def test_an_option_replaces_the_whole_list_of_mirrors(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "https://a.example.org\nhttps://b.example.org\n")
    found = settings(tmp_path, contenturl="https://c.example.org")
    assert (found.content_url, found.content_mirrors) == ("https://c.example.org", ())


def test_a_mirror_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "https://a.example.org\nhttps://b.example.org/\nhttps://b.example.org\n")
    assert settings(tmp_path).content_mirrors == ("https://b.example.org",)


def test_a_mirror_that_is_no_url_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "https://a.example.org\nnonsense\n")
    with pytest.raises(UsageError, match="mirror_contenturl: 'nonsense'"):
        settings(tmp_path)


def test_too_many_mirrors_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "\n".join(f"https://m{n}.example.org" for n in range(MAX_MIRRORS + 1)))
    with pytest.raises(UsageError, match=f"more than {MAX_MIRRORS}"):
        settings(tmp_path)


@given(data=st.binary(max_size=300))
def test_any_mirror_file_is_a_list_of_urls_or_an_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mirror"
        path.write_bytes(data)
        with suppress(UsageError):
            for url in mirror_list(path):
                assert check_url(url, "x") == url


def test_mirror_files_can_be_left_unread_by_who_replaces_them(tmp_path: Path) -> None:
    write(tmp_path, MIRROR_FILE, "nonsense")
    write(tmp_path, f"{DEFAULTS}/contenturl", "https://vendor.example.org\n")
    assert settings(tmp_path, without_mirrors=True).content_url == "https://vendor.example.org"


def test_nothing_is_limited_unless_it_is_asked_for(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.offline, found.limit_rate, found.cache_limit, found.cache_days) == (False, None, None, None)


def test_limits_and_being_offline_are_options(tmp_path: Path) -> None:
    found = settings(tmp_path, offline=True, limit_rate=500_000, cache_limit=2, cache_days=30)
    assert (found.offline, found.limit_rate, found.cache_limit, found.cache_days) == (True, 500_000, 2, 30)


def test_a_client_certificate_that_everybody_can_read_is_worth_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "etc/swupd/client.pem", "")
    (tmp_path / "etc/swupd/client.pem").chmod(0o644)
    (warning,) = settings(tmp_path).warnings
    assert "client.pem" in warning
    (tmp_path / "etc/swupd/client.pem").chmod(0o600)
    assert settings(tmp_path).warnings == ()
