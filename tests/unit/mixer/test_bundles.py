"""Where definitions are found, and the closure of a mix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.bundles import BundleSet, Definitions
from mixer.config import Config, TreeSource
from mixer.errors import DefinitionError, UnknownPackageError
from mixer.located import Located
from mixer.workspace import Workspace

CORE = {"os-core": "base-files\n", "os-core-update": "include(os-core)\nupdater\n"}


class Mix:
    """A workspace with local definitions, and one directory of others."""

    def __init__(self, path: Path) -> None:
        self.workspace = Workspace(path / "mix")
        self.upstream = path / "upstream"
        self.workspace.local_bundles.mkdir(parents=True)
        self.upstream.mkdir()
        self.config = Config(source=TreeSource(path), bundle_directories=(self.upstream,))

    def write(self, definitions: Mapping[str, str]) -> Mix:
        for name, text in definitions.items():
            (self.workspace.local_bundles / name).write_text(text)
        return self

    def write_upstream(self, definitions: Mapping[str, str]) -> Mix:
        for name, text in definitions.items():
            (self.upstream / name).write_text(text)
        return self

    @property
    def definitions(self) -> Definitions:
        return Definitions(self.workspace, self.config.bundle_directories)

    def load(self, *names: str) -> BundleSet:
        self.workspace.set_mix_bundles({"os-core", "os-core-update", *names})
        return BundleSet.load(self.workspace, self.config)

    def refused(self, *names: str) -> DefinitionError:
        with pytest.raises(DefinitionError) as caught:
            self.load(*names)
        return caught.value


@pytest.fixture
def mix(tmp_path: Path) -> Mix:
    return Mix(tmp_path).write(CORE)


def packages(definitions: Definitions, name: str) -> list[str]:
    definition = definitions.find(name)
    assert definition is not None
    return [package.name for package in definition.packages]


def test_local_definitions_win(mix: Mix) -> None:
    mix.write({"web": "local\n"}).write_upstream({"web": "upstream\n", "other": "upstream\n"})
    assert packages(mix.definitions, "web") == ["local"]
    assert packages(mix.definitions, "other") == ["upstream"]


def test_a_listed_package_is_a_bundle_and_stands_between_local_and_upstream(mix: Mix) -> None:
    mix.workspace.local_packages.write_text("# single packages\nhtop\nvim # editor\nweb\n")
    mix.write({"web": "local\n"}).write_upstream({"vim": "upstream\n"})
    assert packages(mix.definitions, "vim") == ["vim"]
    assert packages(mix.definitions, "web") == ["local"]
    htop = mix.load("htop")["htop"]
    assert htop.is_pundle
    assert htop.packages == (("htop", 2),)


def test_only_package_names_can_stand_in_the_list_of_packages(mix: Mix) -> None:
    mix.workspace.local_packages.write_text("htop\ninclude(os-core)\n")
    with pytest.raises(DefinitionError, match="local-packages: line 2: only package names"):
        mix.definitions.find("htop")


def test_a_bundle_with_two_forms_in_one_directory_is_refused(mix: Mix) -> None:
    mix.write({"web": "nginx\n", "web.yaml": "packages: [nginx]\n"})
    with pytest.raises(
        DefinitionError, match=r"local-bundles/web.yaml: the bundle web is also defined in local-bundles/web"
    ):
        mix.definitions.find("web")


@pytest.mark.parametrize(
    "name", ["README.md", "README", ".hidden", "web~", "web.yaml", "sub", "MoM", "../mix/mixbundles"]
)
def test_what_is_no_definition_is_not_found(mix: Mix, name: str) -> None:
    mix.write({"README.md": "x\n", "README": "x\n", ".hidden": "x\n", "web~": "x\n", "MoM": "x\n", "web.yaml": "{}\n"})
    (mix.workspace.local_bundles / "sub").mkdir()
    assert mix.definitions.find(name) is None
    assert mix.definitions.names() == ["os-core", "os-core-update", "web"]


def test_a_missing_directory_of_definitions_is_an_error(mix: Mix) -> None:
    mix.upstream.rmdir()
    assert "upstream: there is no such directory" in str(mix.refused("web"))


def test_the_mix_is_closed_over_includes_and_also_adds(mix: Mix) -> None:
    mix.write(
        {"web": "include(tls)\nalso-add(logs)\n", "tls": "openssl\n", "logs": "include(zip)\n", "zip": "", "not": ""}
    )
    bundles = mix.load("web")
    assert set(bundles) == {"os-core", "os-core-update", "web", "tls", "logs", "zip"}
    assert bundles.requested == {"os-core", "os-core-update", "web"}
    assert bundles.packages == ("base-files", "openssl", "updater")
    assert bundles.includes("web") == {"tls"}


def test_every_bundle_comes_after_those_it_includes(mix: Mix) -> None:
    mix.write({"a": "include(z)\n", "z": "include(m)\n", "m": ""})
    assert list(mix.load("a")) == ["os-core", "m", "z", "a", "os-core-update"]


def test_cycles_are_accepted(mix: Mix) -> None:
    mix.write({"a": "include(b)\n", "b": "include(c)\n", "c": "include(a)\ninclude(d)\n", "d": ""})
    bundles = mix.load("a")
    assert bundles.includes("a") == {"b", "c", "d"}
    assert list(bundles).index("d") < list(bundles).index("c")


def test_a_long_chain_of_includes_is_no_problem(mix: Mix) -> None:
    mix.write({f"b{number}": f"include(b{number + 1})\n" for number in range(1500)} | {"b1500": ""})
    assert len(mix.load("b0").includes("b0")) == 1500


def test_an_unknown_bundle_in_the_mix_is_named_with_its_line(mix: Mix) -> None:
    mix.write({"web-server": ""})
    error = mix.refused("web-servr")
    assert str(error) == "mixbundles: line 3: unknown bundle web-servr"
    assert error.hint == "did you mean web-server?"


@pytest.mark.parametrize(("directive", "verb"), [("include", "includes"), ("also-add", "also adds")])
def test_an_unknown_include_is_named_with_both_bundles_and_its_line(mix: Mix, directive: str, verb: str) -> None:
    mix.write({"web": f"nginx\n{directive}(tlss)\n", "tls": ""})
    error = mix.refused("web")
    assert str(error) == f"local-bundles/web: line 2: the bundle web {verb} the unknown bundle tlss"
    assert error.hint == "did you mean tls?"


@pytest.mark.parametrize("missing", ["os-core", "os-core-update"])
def test_the_bundles_of_every_mix_have_to_be_in_it(mix: Mix, missing: str) -> None:
    mix.write({"os-core-update": "updater\n"})
    mix.workspace.set_mix_bundles({"os-core", "os-core-update"} - {missing})
    with pytest.raises(DefinitionError, match=f"mixbundles: the bundle {missing} must be in the mix") as caught:
        BundleSet.load(mix.workspace, mix.config)
    assert f"mixer bundle add {missing}" in caught.value.hint


def test_content_is_found_in_the_workspace_and_then_beside_the_definition(mix: Mix) -> None:
    mix.write_upstream({"web": "content(files)\ncontent(more)\n"})
    for directory in (mix.workspace.path / "files", mix.upstream / "files", mix.upstream / "more"):
        directory.mkdir()
    assert mix.load("web").content_trees("web") == (mix.workspace.path / "files", mix.upstream / "more")


def test_content_that_is_not_there_is_an_error(mix: Mix) -> None:
    mix.write({"web": "nginx\ncontent(files)\n"})
    assert "local-bundles/web: line 2: content(files) is not a directory" in str(mix.refused("web"))


def test_an_unknown_package_is_named_with_its_definition_and_line(mix: Mix) -> None:
    mix.write({"web": "include(os-core)\nnginxx\n", "dev": "gccc\n"})
    error = mix.load("web", "dev").unknown_packages(UnknownPackageError({"nginxx", "gccc"}, hint="see suites"))
    assert str(error) == "local-bundles/dev: line 1: unknown package gccc; also nginxx (local-bundles/web: line 2)"
    assert error.hint == "see suites"


def test_an_unknown_package_of_no_definition_is_named_all_the_same(mix: Mix) -> None:
    assert str(mix.load().unknown_packages(UnknownPackageError(["apt"]))) == "mixbundles: unknown package apt"


def test_problems_of_a_definition_are_all_named(mix: Mix) -> None:
    mix.write({"web": "# [TITLE]: web\ninclude(a)\nalso-add(b)\n"})
    lines = [problem.line for problem in mix.definitions.problems("web", "here", strict=False)]
    assert lines == [2, 3]
    assert len(mix.definitions.problems("web", "here", strict=True)) == 2 + 4
    assert mix.definitions.problems("os-core", "here", strict=False) == []


_GRAPHS = st.dictionaries(
    st.integers(0, 7), st.tuples(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7))), min_size=8, max_size=8
)


@settings(max_examples=50, deadline=None)
@given(_GRAPHS, st.randoms(use_true_random=False))
def test_the_order_depends_on_nothing_but_the_definitions(
    tmp_path_factory: pytest.TempPathFactory,
    graph: dict[int, tuple[set[int], set[int]]],
    random: Random,
) -> None:
    mix = Mix(tmp_path_factory.mktemp("graph"))
    mix.write(
        {
            f"b{name}": "".join(f"include(b{other})\n" for other in includes)
            + "".join(f"also-add(b{other})\n" for other in also_adds)
            for name, (includes, also_adds) in graph.items()
        }
    )
    names = [Located(f"b{name}", 0) for name in graph]
    expected = BundleSet.close(mix.definitions, names, "here")
    random.shuffle(names)
    order = list(BundleSet.close(mix.definitions, names, "here"))
    assert order == list(expected)
    for name in order:
        for needed in (item.name for item in expected[name].includes):
            assert order.index(needed) < order.index(name) or name in expected.includes(needed)
