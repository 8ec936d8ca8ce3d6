"""Both forms of a bundle definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.definition import (
    HEADERS,
    BundleDefinition,
    parse_text_form,
    parse_yaml_form,
    read,
    serialise_text,
    serialise_yaml,
    strict_problems,
)
from mixer.errors import DefinitionError
from mixer.located import MAX_FILE_BYTES, Located

EXAMPLE = """\
# [TITLE]: web
# [DESCRIPTION]: A web server: small, # and fast
# [STATUS]: Active
# [CAPABILITIES]:
# [MAINTAINER]: Jane Doe <jane@example.org>
# [TAGS]: unknown headers are comments
include(os-core)   # always
\talso-add(editors)
content(files/web///)
un-export(/usr/bin/helper)

nginx-light
libstdc++6
nginx-light
"""

AS_YAML = """\
title: web
description: 'A web server: small, # and fast'
status: Active
capabilities:
maintainer: Jane Doe <jane@example.org>
includes: [os-core]
also_add: [editors]
content: [files/web]
un_export: [/usr/bin/helper]
packages:
  - nginx-light
  - libstdc++6
"""


def text_form(text: str, name: str = "web") -> BundleDefinition:
    return parse_text_form(text, name, Path(name), f"local-bundles/{name}")


def yaml_form(text: str, name: str = "web") -> BundleDefinition:
    return parse_yaml_form(text, name, Path(f"{name}.yaml"), f"local-bundles/{name}.yaml")


def without_places(definition: BundleDefinition) -> BundleDefinition:
    """The same without lines, files, and headers that say nothing."""
    lists = ("includes", "also_adds", "contents", "un_exports", "packages")
    bare = {name: tuple(Located(item.name, 0) for item in getattr(definition, name)) for name in lists}
    headers = {name: Located(value.name, 0) for name, value in definition.headers.items() if value.name}
    return replace(definition, path=Path(), shown="", headers=headers, **bare)


def refused(text: str) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        text_form(text)
    return caught.value


def test_every_part_of_the_text_form_is_read_with_its_line() -> None:
    web = text_form(EXAMPLE)
    assert web.title == "web"
    assert web.description == "A web server: small, # and fast"
    assert (web.status, web.capabilities, web.maintainer) == ("Active", "", "Jane Doe <jane@example.org>")
    assert web.includes == (("os-core", 7),)
    assert web.also_adds == (("editors", 8),)
    assert web.contents == (("files/web", 9),)
    assert web.un_exports == (("/usr/bin/helper", 10),)
    assert web.packages == (("nginx-light", 12), ("libstdc++6", 13))


def test_both_forms_say_the_same() -> None:
    assert without_places(yaml_form(AS_YAML)) == without_places(text_form(EXAMPLE))


def test_names_in_yaml_have_their_lines() -> None:
    assert yaml_form(AS_YAML).packages == (("nginx-light", 11), ("libstdc++6", 12))


@pytest.mark.parametrize(
    "comment", ["# just a comment", "#[TITLE]: x", " # [TITLE]: x", "# [title]: x", "# [TITLE] x", "# [Tags]: x", ""]
)
def test_what_is_no_header_is_a_comment(comment: str) -> None:
    web = text_form(f"{comment}\n")
    assert web.headers == {}
    assert web.packages == ()


def test_an_also_add_that_is_an_include_is_dropped() -> None:
    web = text_form("also-add(a)\ninclude(a)\nalso-add(b)\n")
    assert web.also_adds == (("b", 3),)


def test_a_bundle_that_names_itself_needs_nothing_for_it() -> None:
    web = text_form("include(web)\nalso-add(web)\n")
    assert (web.includes, web.also_adds) == ((), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\ninclude(os-core\n", "local-bundles/web: line 2: include( has no closing parenthesis"),
        ("include(os-core # )\n", "line 1: include( has no closing parenthesis"),
        ("include()\n", "line 1: '' is no name for a bundle"),
        ("include( os-core )\n", "line 1: ' os-core ' is no name for a bundle"),
        ("include(MoM)\n", "line 1: 'MoM' is no name for a bundle"),
        ("also-add(full)\n", "line 1: 'full' is no name for a bundle"),
        ("also-add(a/b)\n", "line 1: 'a/b' is no name for a bundle"),
        ("include (os-core)\n", "line 1: no blank may stand between include and its parenthesis"),
        ("content()\n", "line 1: '' is no path for content()"),
        ("content(/)\n", "line 1: '/' is no path for content()"),
        ("content( a)\n", "line 1: ' a' is no path for content()"),
        ("un-export(bin/x)\n", "line 1: un-export() needs an absolute path"),
        ("two words\n", "line 1: 'two words' is no name for a package"),
        ("--option\n", "line 1: '--option' is no name for a package"),
        ("a/bookworm\n", "line 1: 'a/bookworm' is no name for a package"),
        ("lib*\n", "line 1: 'lib*' is no name for a package"),
        ("# [TITLE]: a\n# [TITLE]: b\n", "line 2: title is given twice (before in line 1)"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in str(refused(text))


def test_an_unknown_directive_is_answered_with_the_nearest_one() -> None:
    error = refused("nginx\nincludes(os-core)\n")
    assert str(error) == "local-bundles/web: line 2: unknown directive includes()"
    assert error.hint == "did you mean include?"


def test_a_package_is_no_directive() -> None:
    assert "unknown directive package()" in str(refused("package(nginx)\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("package: [a]\n", "local-bundles/web.yaml: line 1: unknown key package"),
        ("title: a\npackages: nginx\n", "line 2: packages must be a list"),
        ("packages:\n  - a\n  - [b]\n", "line 3: an item of packages must be a string"),
        ("includes: ['']\n", "line 1: '' is no name for a bundle"),
        ("- a\n", "line 1: the document must be a mapping"),
    ],
)
def test_wrong_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        yaml_form(text)
    assert message in str(caught.value)


def test_a_text_of_several_lines_in_yaml_becomes_one() -> None:
    assert yaml_form("description: |\n  one\n  two\n").description == "one two"


def test_a_file_name_that_is_no_bundle_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="MoM is no name for a bundle"):
        text_form("nginx\n", name="MoM")


def test_the_form_follows_from_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "web").write_text(EXAMPLE)
    (tmp_path / "web.yaml").write_text(AS_YAML)
    text = read(tmp_path / "web", "web")
    structured = read(tmp_path / "web.yaml", "web.yaml")
    assert without_places(text) == without_places(structured)
    assert structured.name == "web"


def test_an_oversized_definition_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web").write_bytes(b"\n" * (MAX_FILE_BYTES + 1))
    with pytest.raises(DefinitionError, match="web: the file is larger than"):
        read(tmp_path / "web", "web")


def test_strict_checks_complain_about_empty_headers_with_their_lines() -> None:
    problems = strict_problems(text_form("# [TITLE]: site\n# [DESCRIPTION]:\n# [STATUS]: Aktive\n"))
    assert [str(problem).removeprefix("local-bundles/web: ") for problem in problems] == [
        "line 1: the title is site, but the bundle is web",
        "line 2: description is empty",
        "capabilities is empty",
        "maintainer is empty",
        "line 3: unknown status Aktive",
    ]


def test_a_complete_definition_passes_the_strict_checks() -> None:
    assert strict_problems(text_form(EXAMPLE.replace("[CAPABILITIES]:", "[CAPABILITIES]: serve pages"))) == []


_NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,12}", fullmatch=True).filter(
    lambda name: name not in ("MoM", "full")
)
_HEADER_TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30).map(str.strip)
_PATHS = st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="#"), min_size=1, max_size=20)


def _located(items: list[str]) -> tuple[Located, ...]:
    return tuple(Located(item, 0) for item in dict.fromkeys(items))


@st.composite
def definitions(draw: st.DrawFn) -> BundleDefinition:
    def names(elements: st.SearchStrategy[str]) -> list[str]:
        return draw(st.lists(elements, max_size=4))

    includes = [name for name in names(_NAMES) if name != "web"]
    also_adds = [name for name in names(_NAMES) if name != "web" and name not in includes]
    return BundleDefinition(
        name="web",
        path=Path(),
        shown="",
        headers={header: Located(text, 0) for header in HEADERS if (text := draw(_HEADER_TEXTS))},
        includes=_located(includes),
        also_adds=_located(also_adds),
        contents=_located([path.rstrip("/") or "x" for path in names(_PATHS)]),
        un_exports=_located(["/" + path for path in names(_PATHS)]),
        packages=_located(names(_NAMES)),
    )


@settings(max_examples=100, deadline=None)
@given(definitions())
def test_what_one_form_says_the_other_can(definition: BundleDefinition) -> None:
    from_text = text_form(serialise_text(definition))
    from_yaml = yaml_form(serialise_yaml(from_text))
    again = text_form(serialise_text(from_yaml))
    assert without_places(from_text) == without_places(from_yaml) == without_places(again) == definition


_LINES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["include(", "also-add(", "content(", "un-export(", "# [TITLE]:", ")", "a", "\r\n", "\x00", "title: "]
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_LINES, max_size=12).map("".join), st.sampled_from(["web", "web.yaml"]))
def test_any_bytes_are_a_definition_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.mktemp("definition") / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = f"{name}: "
    try:
        assert read(path, name).name == "web"
    except DefinitionError as error:
        message = str(error)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
