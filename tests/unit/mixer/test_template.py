"""The builder.yaml that a new workspace gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixer import config
from mixer.errors import ConfigError
from mixer.located import Origin
from mixer.template import builder_yaml

ORIGIN = Origin("builder.yaml", ConfigError)


def parse(text: str) -> config.Config:
    return config.parse(text, Path("/mix"), {}, ORIGIN)


def test_the_template_says_what_leaving_everything_out_means() -> None:
    stateless = "stateless: convert\nupdater: true\n"
    assert parse(builder_yaml("apt", "", [])) == parse(f"source: {{type: apt, suites: [bookworm]}}\n{stateless}")
    assert parse(builder_yaml("tree", "roots", [])) == parse("source: {type: tree, path: roots}\n")


def test_every_key_is_documented_and_its_example_is_valid() -> None:
    text = builder_yaml("apt", "", [])
    # Without the comment signs of the examples; sentences begin with a capital letter or go on after a line of text.
    lines = [
        re.sub(r"^( *)# ", r"\1", line) if re.match(r" *# +(?:[a-z_A-Z]+:|- )", line) else line
        for line in text.split("\n")
    ]
    parsed = "\n".join(lines).replace("suites: [bookworm]", "suites: [bookworm, bookworm-security]", 1)
    keys = {*config._KEYS, *config._APT_KEYS, *config._MIRROR_KEYS}
    assert {key for key in keys if not re.search(rf"^ *(?:- )?{key}:", parsed, re.MULTILINE)} == set()
    example = parse(parsed)
    assert isinstance(example.source, config.AptSource)
    assert example.source.uris("bookworm-security") == ("https://mirror.example.org/debian-security",)
    assert example.os_release


@pytest.mark.parametrize("path", ["roots", "../a b", "/srv/ä: #x", "$HOME/'x'", "- y", "no", "@x", '"'])
def test_any_path_is_written_so_that_it_is_read_back(path: str) -> None:
    values = parse(builder_yaml("tree", path, [path]))
    assert values.source == config.TreeSource(Path("/mix") / path)
    assert values.bundle_directories == (Path("/mix") / path,)
