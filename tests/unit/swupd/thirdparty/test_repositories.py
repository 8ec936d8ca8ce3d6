"""repo.ini: what is written is read again, and damage is told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swupd.errors import RepositoryError, UsageError
from swupd.thirdparty.repositories import (
    FILE_LIMIT,
    NAME_LIMIT,
    Repository,
    check_name,
    find,
    is_name,
    parse,
    read,
    serialise,
    write,
)

names = st.text("abz09_-.", min_size=1, max_size=20).filter(lambda name: name[0] != ".")
urls = st.text("az09=&%.-/", max_size=20).map(lambda path: f"https://x.example/{path}z")
TWO = (Repository("mine", "https://example.org/update"), Repository("a.b-c_1", "file:///srv/a"))


@given(st.dictionaries(names, urls, max_size=5))
def test_what_is_written_is_read_again(items: dict[str, str]) -> None:
    repositories = tuple(Repository(*item) for item in items.items())
    assert parse(serialise(repositories), "repo.ini") == repositories


@given(st.binary(max_size=200) | st.text("[]abc=url\n;#/: ", max_size=60).map(str.encode))
def test_any_bytes_are_repositories_or_one_clear_error(data: bytes) -> None:
    message, repositories = "repo.ini:", ()
    try:
        repositories = parse(data, "repo.ini")
    except UsageError as error:
        message = str(error)
    assert message.startswith("repo.ini:")
    for repository in repositories:
        assert is_name(repository.name)
        assert repository.url.startswith(("https://", "http://", "file://"))


@given(st.text(max_size=NAME_LIMIT + 2))
def test_a_name_is_one_component_of_a_path_whatever_was_typed(text: str) -> None:
    try:
        name = check_name(text, "NAME")
    except UsageError:
        return
    assert check_name(name, "NAME") == name == Path(name).name
    assert not name.startswith(".")


def test_comments_and_empty_lines_mean_nothing() -> None:
    data = b"; one\n\n[Mine]\n# two\nurl=https://example.org/update/\n"
    assert parse(data, "repo.ini") == (TWO[0],)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url=https://example.org\n", "repo.ini:1: 'url=https://example.org' does not belong here"),
        ("[a]\n[b]\nurl=https://b\n", "repo.ini:1: repository 'a' has no URL"),
        ("[a]\n", "repo.ini:1: repository 'a' has no URL"),
        ("[a]\nurl=https://a\n[A]\nurl=https://b\n", "repo.ini:3: there are two repositories 'a'"),
        ("[a]\nurl=https://a\nurl=https://b\n", "repo.ini:3: 'url=https://b' does not belong here"),
        ("[..]\nurl=https://a\n", "repo.ini:1: '..' cannot be the name of a repository"),
        ("[a]\nurl=nonsense\n", "repo.ini:2: 'nonsense' is not a URL"),
        ("[a]\nurl =https://a\n", "repo.ini:2: 'url =https://a' does not belong here"),
    ],
)
def test_damage_is_told_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text.encode(), "repo.ini")
    assert str(caught.value) == message


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="larger"):
        parse(b"#" * (FILE_LIMIT + 1), "repo.ini")


def test_a_system_without_file_has_no_repositories(tmp_path: Path) -> None:
    assert read(tmp_path) == ()


def test_the_file_lies_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "opt/3rd-party").mkdir(parents=True)
    write(tmp_path, TWO)
    assert read(tmp_path) == TWO
    assert (tmp_path / "opt/3rd-party/repo.ini").stat().st_mode & 0o777 == 0o644


def test_a_repository_is_found_in_any_case() -> None:
    assert find(TWO, "MINE") is TWO[0]
    with pytest.raises(RepositoryError, match="there is no 3rd-party repository 'other'"):
        find(TWO, "other")
