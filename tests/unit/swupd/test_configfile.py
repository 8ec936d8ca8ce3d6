"""Configuration files are read strictly, and later settings override earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swupd import configfile
from swupd.errors import UsageError


def load(tmp_path: Path, *texts: str) -> configfile.ConfigFile:
    places = []
    for number, text in enumerate(texts):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "config").write_text(text)
        places.append(place)
    return configfile.load(places)


def values(config: configfile.ConfigFile, command: str) -> dict[str, str]:
    return {key: setting.value for key, setting in config.settings_for(command).items()}


def test_global_settings_hold_for_every_command(tmp_path: Path) -> None:
    config = load(tmp_path, "[GLOBAL]\nmax_retries=5\n")
    assert values(config, "update") == values(config, "repair") == {"max_retries": "5"}


def test_settings_before_any_section_are_global(tmp_path: Path) -> None:
    assert values(load(tmp_path, "quiet=true\n"), "info") == {"quiet": "true"}


def test_a_section_holds_for_its_command_only(tmp_path: Path) -> None:
    config = load(tmp_path, "[update]\nkeepcache=true\n")
    assert values(config, "update") == {"keepcache": "true"}
    assert values(config, "clean") == {}


def test_a_section_overrides_an_earlier_global_setting(tmp_path: Path) -> None:
    assert values(load(tmp_path, "format=1\n[update]\nformat=2\n"), "update") == {"format": "2"}


def test_a_later_global_setting_overrides_a_section(tmp_path: Path) -> None:
    assert values(load(tmp_path, "[update]\nformat=2\n[GLOBAL]\nformat=1\n"), "update") == {"format": "1"}


def test_a_later_file_overrides_an_earlier_one(tmp_path: Path) -> None:
    assert values(load(tmp_path, "[update]\nformat=2\n", "format=3\n"), "update") == {"format": "3"}


def test_keys_and_sections_are_not_case_sensitive_but_values_are(tmp_path: Path) -> None:
    assert values(load(tmp_path, "[Os-Install]\nUrl=HTTPS://A\n"), "os-install") == {"url": "HTTPS://A"}


def test_comments_and_empty_lines_mean_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "; one\n\n# two=2\n").settings == ()


def test_nothing_is_trimmed(tmp_path: Path) -> None:
    assert values(load(tmp_path, "a =  b \n"), "info") == {"a ": "  b "}


@pytest.mark.parametrize("line", ["nonsense", "=1", "a=b=c", "[update", "[update] ", "[]", " "])
def test_a_bad_line_is_an_error_with_file_and_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"0/config:2: ") as caught:
        load(tmp_path, f"a=b\n{line}\nc=d\n")
    assert caught.value.hint


def test_a_last_line_without_its_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config:2: the last line has no line end"):
        load(tmp_path, "a=b\nc=d")


def test_a_setting_knows_where_it_stands(tmp_path: Path) -> None:
    setting = load(tmp_path, "\n[update]\nformat=2\n").settings_for("update")["format"]
    assert setting.where == f"{tmp_path}/0/config:3"


def test_directories_without_a_file_are_skipped(tmp_path: Path) -> None:
    assert configfile.load([tmp_path / "missing", tmp_path]).settings == ()


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        configfile.load([tmp_path])


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="larger than"):
        load(tmp_path, "#" * (configfile.FILE_LIMIT + 1))


def test_the_environment_replaces_the_list_of_directories() -> None:
    assert configfile.directories({"SWUPD_CONFIG_PATH": "/a:/b"}) == (Path("/a"), Path("/b"))
    assert configfile.directories({"SWUPD_CONFIG_PATH": ""}) == ()
    assert configfile.directories({})[-1] == Path("/etc/swupd")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_an_error(data: bytes) -> None:
    try:
        found = configfile.parse(data, "config")
    except UsageError:
        return
    assert all(setting.key and "=" not in setting.value for setting in found)
