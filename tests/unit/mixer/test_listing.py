"""The bundles of a mix as rows and as a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixer.bundles import BundleSet, Definitions
from mixer.listing import listing, tree
from mixer.located import Located
from mixer.workspace import Workspace

LOCAL = {
    "os-core": "# [STATUS]: Active\n# [DESCRIPTION]: The base\n",
    "web": "include(tls)\nalso-add(logs)\n",
    "tls": "include(os-core)\n",
    "logs": "include(tls)\n",
    "other": "",
}


@pytest.fixture
def definitions(tmp_path: Path) -> Definitions:
    workspace = Workspace(tmp_path)
    for directory, texts in ((workspace.local_bundles, LOCAL), (tmp_path / "upstream", {"tls": "", "extra": ""})):
        directory.mkdir()
        for name, text in texts.items():
            (directory / name).write_text(text)
    workspace.local_packages.write_text("htop\n")
    return Definitions(workspace, [tmp_path / "upstream"])


def rows(definitions: Definitions, which: str) -> dict[str, tuple[str, str, str, str]]:
    mix = BundleSet.close(definitions, [Located("web", 1), Located("htop", 2)], "mixbundles")
    return {row.name: (row.origin, row.kind, row.in_mix, row.hidden) for row in listing(definitions, mix, which)}


def test_the_mix_shows_what_was_listed_and_what_came_along(definitions: Definitions) -> None:
    assert rows(definitions, "mix") == {
        "htop": ("local", "package", "listed", ""),
        "logs": ("local", "bundle", "included", ""),
        "os-core": ("local", "bundle", "included", ""),
        "tls": ("local", "bundle", "included", "masking"),
        "web": ("local", "bundle", "listed", ""),
    }


def test_local_definitions_show_which_upstream_ones_they_hide(definitions: Definitions) -> None:
    local = rows(definitions, "local")
    assert local.keys() == {*LOCAL, "htop"}
    assert local["other"] == ("local", "bundle", "", "")
    assert local["tls"] == ("local", "bundle", "included", "masking")


def test_upstream_definitions_show_whether_they_are_hidden(definitions: Definitions) -> None:
    assert rows(definitions, "upstream") == {
        "extra": ("upstream", "bundle", "", ""),
        "tls": ("upstream", "bundle", "included", "masked"),
    }


def test_rows_have_status_and_description(definitions: Definitions) -> None:
    mix = BundleSet.close(definitions, [Located("os-core", 1)], "mixbundles")
    [row] = listing(definitions, mix, "mix")
    assert (row.status, row.description) == ("Active", "The base")


def test_the_tree_opens_each_bundle_once(definitions: Definitions) -> None:
    assert tree(definitions, ["logs", "web", "nope"]) == [
        "logs",
        "    tls",
        "        os-core",
        "web",
        "    tls (see above)",
        "    also-add logs (see above)",
        "nope (unknown)",
    ]
