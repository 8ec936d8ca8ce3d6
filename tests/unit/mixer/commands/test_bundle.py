"""`mixer bundle add|remove|list|validate|create`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixer.cli import main
from mixer.workspace import Workspace


class Mix:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.workspace = Workspace(path)
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def run(self, *arguments: str) -> int:
        status = main(["--workspace", str(self.workspace.path), "bundle", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return status

    def write(self, name: str, text: str) -> None:
        (self.workspace.local_bundles / name).write_text(text)

    @property
    def listed(self) -> str:
        return self.workspace.bundles_file.read_text()


@pytest.fixture
def mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mix:
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    (upstream / "editors").write_text("# [TITLE]: editors\nvim-tiny # small\n")
    assert main(["--quiet", "--workspace", str(tmp_path / "mix"), "init", "--bundles", str(upstream)]) == 0
    mix = Mix(tmp_path / "mix", capsys)
    mix.write("web", "include(tls)\nalso-add(editors)\nnginx\n")
    mix.write("tls", "include(os-core)\n")
    return mix


def test_add_keeps_the_list_sorted_and_says_what_comes_along(mix: Mix) -> None:
    assert mix.run("add", "web", "editors") == 0
    assert mix.listed == "editors\nos-core\nos-core-update\nweb\n"
    assert mix.out == ("web is added to the mix, along with editors, os-core, tls.\neditors is added to the mix.\n")


def test_add_says_what_is_in_the_mix_already(mix: Mix) -> None:
    assert mix.run("add", "os-core") == 0
    assert mix.out == "os-core is in the mix already.\n"


def test_add_refuses_an_unknown_bundle_and_changes_nothing(mix: Mix) -> None:
    before = mix.listed
    assert mix.run("add", "tls", "webb") == 1
    assert mix.err == "Error: unknown bundle webb; nothing was changed\nHint: did you mean web?\n"
    assert mix.listed == before


def test_add_refuses_a_bundle_that_includes_an_unknown_one(mix: Mix) -> None:
    mix.write("app", "include(nowhere)\n")
    before = mix.listed
    assert mix.run("add", "app") == 1
    assert "local-bundles/app: line 1: the bundle app includes the unknown bundle nowhere" in mix.err
    assert mix.listed == before


def test_remove_takes_names_out(mix: Mix) -> None:
    mix.run("add", "web", "tls")
    assert mix.run("remove", "web", "tls") == 0
    assert mix.listed == "os-core\nos-core-update\n"
    assert mix.err == ""
    assert (mix.workspace.local_bundles / "web").exists()


def test_remove_says_what_brings_a_bundle_back(mix: Mix) -> None:
    mix.run("add", "web", "tls")
    assert mix.run("remove", "tls") == 0
    assert mix.err == "Warning: tls is still built: it comes along with web\n"


def test_remove_refuses_what_is_not_in_the_list(mix: Mix) -> None:
    before = mix.listed
    assert mix.run("remove", "os-core-updat", "os-core") == 1
    assert (
        mix.err == "Error: not in the list of the mix: os-core-updat\nHint: did you mean os-core-update or os-core?\n"
    )
    assert mix.listed == before


def test_remove_refuses_the_bundles_that_every_mix_needs(mix: Mix) -> None:
    before = mix.listed
    assert mix.run("remove", "os-core-update") == 1
    assert "every mix needs the bundle os-core-update" in mix.err
    assert mix.listed == before


def test_remove_mends_a_mix_with_a_broken_bundle(mix: Mix) -> None:
    mix.run("add", "web", "tls")
    mix.write("web", "include(\n")
    assert mix.run("remove", "tls") == 0
    assert "local-bundles/web: line 1" in mix.err
    assert mix.run("remove", "web") == 0
    assert mix.err == ""


def test_list_shows_the_mix_as_a_table(mix: Mix) -> None:
    mix.run("add", "web")
    assert mix.run("list") == 0
    lines = [line.split() for line in mix.out.splitlines()]
    assert lines[0] == ["bundle", "definition", "in", "the", "mix", "status", "description"]
    assert lines[1][:4] == ["editors", "upstream", "bundle", "included"]
    assert [line[0] for line in lines[1:]] == ["editors", "os-core", "os-core-update", "tls", "web"]


def test_list_shows_a_tree(mix: Mix) -> None:
    mix.run("add", "web")
    assert mix.run("list", "--tree") == 0
    assert mix.out.splitlines()[-4:] == ["web", "    tls", "        os-core", "    also-add editors"]


def test_list_gives_scripts_json(mix: Mix) -> None:
    assert mix.run("list", "upstream", "--json") == 0
    assert json.loads(mix.out) == [
        {
            "name": "editors",
            "origin": "upstream",
            "kind": "bundle",
            "in_mix": "",
            "hidden": "",
            "status": "",
            "description": "",
        }
    ]


def test_validate_is_content_with_valid_definitions(mix: Mix) -> None:
    assert mix.run("validate", "web") == 0
    assert mix.out == "1 definition is valid.\n"
    assert mix.run("validate", "--all") == 0
    assert mix.out == "5 definitions are valid.\n"


def test_validate_names_every_problem_with_its_place(mix: Mix) -> None:
    mix.write("a", "include(tlss)\n")
    mix.write("b", "nginx\ncontent(nowhere)\n")
    mix.write("c", "two words\n")
    assert mix.run("validate", "a", "b", "c", "d") == 1
    errors = [line for line in mix.err.splitlines() if line.startswith("Error: ")]
    assert errors == [
        "Error: local-bundles/a: line 1: the bundle a includes the unknown bundle tlss",
        "Error: local-bundles/b: line 2: content(nowhere) is not a directory",
        "Error: local-bundles/c: line 1: 'two words' is no name for a package",
        "Error: the command line: unknown bundle d",
    ]


def test_validate_strict_wants_complete_headers(mix: Mix) -> None:
    assert mix.run("validate", "os-core", "--strict") == 0
    assert mix.run("validate", "tls", "--strict") == 1
    assert mix.err.count("is empty") == 5


def test_validate_wants_names_or_all(mix: Mix) -> None:
    assert mix.run("validate") == 1
    assert mix.run("validate", "web", "--all") == 1


@pytest.mark.parametrize(("option", "file"), [([], "app"), (["--yaml"], "app.yaml")])
def test_create_writes_a_template_that_can_be_built(mix: Mix, option: list[str], file: str) -> None:
    assert mix.run("create", "app", *option) == 0
    assert (mix.workspace.local_bundles / file).is_file()
    assert mix.run("validate", "app") == 0
    assert mix.run("add", "app") == 0


def test_create_copies_an_upstream_definition(mix: Mix) -> None:
    assert mix.run("create", "editors") == 0
    assert (mix.workspace.local_bundles / "editors").read_text() == "# [TITLE]: editors\nvim-tiny # small\n"


def test_create_translates_an_upstream_definition(mix: Mix) -> None:
    assert mix.run("create", "editors", "--yaml") == 0
    assert "packages:\n- vim-tiny\n" in (mix.workspace.local_bundles / "editors.yaml").read_text()


@pytest.mark.parametrize("option", [[], ["--yaml"]])
def test_create_overwrites_nothing(mix: Mix, option: list[str]) -> None:
    before = (mix.workspace.local_bundles / "web").read_text()
    assert mix.run("create", "app", "web", *option) == 1
    assert "local-bundles/web exists" in mix.err
    assert (mix.workspace.local_bundles / "web").read_text() == before
    assert not (mix.workspace.local_bundles / "app").exists()


@pytest.mark.parametrize("name", ["MoM", "a/b", "..", ".x", "README", ""])
def test_create_refuses_what_is_no_name(mix: Mix, name: str) -> None:
    assert mix.run("create", name) == 1
    assert "is no name for a bundle" in mix.err


def test_a_mix_of_prepared_roots_has_no_definitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workspace", str(tmp_path), "init", "--source", "tree", "--tree-path", str(tmp_path / "roots")]) == 0
    assert main(["--workspace", str(tmp_path), "bundle", "list"]) == 1
    assert "roots/<version>/groups.ini" in capsys.readouterr().err
