"""dpkg's database: requirements, canonical paths, owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.errors import SourceError
from mixer.sources import dpkg


class DebianRoot:
    """A root with dpkg's files, and whatever objects a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / dpkg.STATE
        (self.state / "info").mkdir(parents=True)
        self.paragraphs: list[str] = []

    def package(self, name: str, files: Sequence[str] = (), **fields: str) -> None:
        values = {"Status": "install ok installed", "Version": "1", "Architecture": "amd64", **fields}
        lines = [f"Package: {name}", *(f"{key.replace('_', '-')}: {value}" for key, value in values.items())]
        self.paragraphs.append("\n".join([*lines, "Description: a package", " with a long text", ""]))
        (self.state / "status").write_text("\n".join(self.paragraphs))
        (self.state / "info" / f"{name}.list").write_text("".join(f"{file}\n" for file in ("/.", *files)))

    def write(self, *paths: str) -> None:
        """Make files; a name that ends with / is a directory, `a -> b` a link."""
        for path in paths:
            name, _, target = path.partition(" -> ")
            place = self.path / name.strip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if target:
                place.symlink_to(target)
            elif name.endswith("/"):
                place.mkdir(exist_ok=True)
            else:
                place.write_text(name)

    def installed(self) -> dict[str, dpkg.Installed]:
        return dpkg.read_status(self.state / "status")

    def owners(self) -> dict[str, tuple[str, ...]]:
        return dpkg.read_owners(self.path, self.installed())


@pytest.fixture
def root(tmp_path: Path) -> DebianRoot:
    return DebianRoot(tmp_path / "root")


def test_the_first_alternative_that_is_met_decides(root: DebianRoot) -> None:
    root.package("app", Depends="absent | second | third", Pre_Depends="third (>= 1)")
    root.package("second")
    root.package("third")
    assert root.installed()["app"].requires == ("second", "third")


def test_a_virtual_name_stands_for_its_installed_provider(root: DebianRoot) -> None:
    root.package("mawk", Provides="awk")
    root.package("base", Depends="awk")
    assert root.installed()["base"].requires == ("mawk",)


def test_a_versioned_demand_is_met_only_by_a_versioned_provision_that_fits(root: DebianRoot) -> None:
    root.package("plain", Provides="api")
    root.package("old", Provides="api (= 1)")
    root.package("new", Provides="api (= 2:0)")
    root.package("app", Depends="api (>= 2)")
    assert root.installed()["app"].requires == ("new",)


@pytest.mark.parametrize(
    ("demand", "met"), [("<< 1.0~rc1", False), (">> 1.0~beta", True), ("= 1.0~rc1", True), (">= 1.0", False)]
)
def test_versions_are_compared_as_debian_does(root: DebianRoot, demand: str, met: bool) -> None:
    root.package("lib", Version="1.0~rc1")
    root.package("other")
    root.package("app", Depends=f"lib ({demand}) | other")
    assert root.installed()["app"].requires == (("lib",) if met else ("other",))


def test_architecture_qualifiers_do_not_matter(root: DebianRoot) -> None:
    root.package("python3")
    root.package("app", Depends="python3:any (>= 0)")
    assert root.installed()["app"].requires == ("python3",)


def test_what_nothing_meets_is_an_error_that_names_it(root: DebianRoot) -> None:
    root.package("app", Depends="ghost (>= 2)")
    with pytest.raises(SourceError, match=r"app requires: ghost \(>= 2\)"):
        root.installed()


def test_a_package_that_is_half_installed_is_an_error(root: DebianRoot) -> None:
    root.package("app", Status="install ok half-configured")
    with pytest.raises(SourceError, match="app is not completely installed"):
        root.installed()


def test_a_removed_package_does_not_count(root: DebianRoot) -> None:
    root.package("gone", Status="deinstall ok config-files")
    assert root.installed() == {}


def test_the_source_package_has_the_name_and_version_of_the_package_unless_it_says_others(root: DebianRoot) -> None:
    root.package("plain", Version="1:2-3")
    root.package("named", Version="1:2-3", Source="other")
    root.package("versioned", Version="1:2-3+b1", Source="other (2-3)", Maintainer="M <m@example.org>", Homepage="h")
    installed = root.installed()
    assert [installed[name].source for name in ("plain", "named", "versioned")] == [
        "plain 1:2-3",
        "other 1:2-3",
        "other 2-3",
    ]
    assert (installed["versioned"].maintainer, installed["versioned"].homepage) == ("M <m@example.org>", "h")
    assert (installed["plain"].maintainer, installed["plain"].homepage) == ("", "")


def test_the_base_is_what_is_essential_with_all_that_it_requires(root: DebianRoot) -> None:
    root.package("bash", Essential="yes", Depends="libc6")
    root.package("libc6", Depends="libgcc")
    root.package("libgcc", Depends="libc6")
    root.package("nginx", Depends="libc6")
    assert dpkg.base_packages(root.installed()) == {"bash", "libc6", "libgcc"}


def test_paths_are_canonical_in_a_merged_root(root: DebianRoot) -> None:
    root.write("/usr/bin/", "/usr/lib/", "/bin -> usr/bin", "/lib -> usr/lib", "/usr/bin/sh -> dash", "/usr/lib/x/y")
    root.package("dash", ["/bin", "/bin/sh", "/lib/x", "/lib/x/y"])
    root.package("coreutils", ["/bin", "/lib/x"])
    owners = root.owners()
    assert owners == {
        "/usr/bin/sh": ("dash",),
        "/usr/lib/x": ("coreutils", "dash"),
        "/usr/lib/x/y": ("dash",),
    }


def test_a_link_that_several_packages_list_belongs_to_nobody(root: DebianRoot) -> None:
    root.write("/usr/bin/", "/bin -> usr/bin")
    root.package("a", ["/bin"])
    root.package("b", ["/bin"])
    assert root.owners() == {}


def test_two_owners_of_a_file_are_an_error(root: DebianRoot) -> None:
    root.write("/etc/both")
    root.package("a", ["/etc/both"])
    root.package("b", ["/etc/both"])
    with pytest.raises(SourceError, match="a and b both own /etc/both"):
        root.owners()


def test_what_is_listed_but_not_there_is_skipped(root: DebianRoot) -> None:
    root.package("doc", ["/usr/share/doc/doc"])
    assert root.owners() == {}


def test_a_diverted_path_is_where_it_was_diverted_to(root: DebianRoot) -> None:
    root.write("/bin/sh", "/bin/sh.distrib")
    root.package("dash", ["/bin/sh"])
    root.package("other-shell", ["/bin/sh"])
    (root.state / "diversions").write_text("/bin/sh\n/bin/sh.distrib\nother-shell\n")
    assert root.owners() == {"/bin/sh.distrib": ("dash",), "/bin/sh": ("other-shell",)}


def test_file_lists_may_carry_the_architecture(root: DebianRoot) -> None:
    root.write("/lib1")
    root.package("libone", ["/lib1"])
    (root.state / "info/libone.list").rename(root.state / "info/libone:amd64.list")
    assert root.owners() == {"/lib1": ("libone",)}


def test_names_that_are_no_text_survive(root: DebianRoot) -> None:
    (root.path / "odd").mkdir()
    Path(f"{root.path}/odd/\udcff").write_text("")
    root.package("odd", [])
    (root.state / "info/odd.list").write_bytes(b"/odd/\xff\n")
    assert root.owners() == {"/odd/\udcff": ("odd",)}


def test_a_circle_of_links_is_an_error_not_a_hang(root: DebianRoot) -> None:
    root.write("/a -> b", "/b -> a")
    with pytest.raises(SourceError, match="too many levels"):
        dpkg.Canonical(str(root.path))("/a/file")


def test_the_target_of_a_chain_of_links_is_found_inside_the_root(root: DebianRoot) -> None:
    root.write(
        "/usr/bin/vim", "/etc/alternatives/vi -> /usr/bin/vim", "/bin -> usr/bin", "/usr/bin/vi -> /etc/alternatives/vi"
    )
    canonical = dpkg.Canonical(str(root.path))
    assert canonical.target("/bin/vi") == "/usr/bin/vim"
    root.write("/usr/bin/lost -> ../../../../nowhere", "/usr/bin/round -> round")
    assert canonical.target("/usr/bin/lost") is None
    assert canonical.target("/usr/bin/round") is None


def tree(children: st.SearchStrategy[str]) -> st.SearchStrategy[Mapping[str, str]]:
    return st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), children, max_size=4)


@given(
    links=tree(st.lists(st.sampled_from(["a", "b", "c", "d", "..", "."]), min_size=1, max_size=4).map("/".join)),
    path=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_canonical_name_stays_in_the_root_and_has_no_links_above_it(
    tmp_path_factory: pytest.TempPathFactory, links: Mapping[str, str], path: list[str]
) -> None:
    top = tmp_path_factory.mktemp("links")
    for name, target in links.items():
        (top / name).symlink_to(target)
    try:
        result = dpkg.Canonical(str(top))("/" + "/".join(path))
    except SourceError:
        return
    parts = result.split("/")[1:]
    assert ".." not in parts
    assert parts[-1] == path[-1]
    assert not any((top / "/".join(parts[: depth + 1])).is_symlink() for depth in range(len(parts) - 1))
