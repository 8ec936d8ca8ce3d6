from __future__ import annotations

from typing import Any

import pytest

from swupd.commands.bundle_remove import choose
from swupd.errors import ExitCode, RequiredBundleError
from swupd.formats.manifest import Manifest

Machine = Any


def test_what_only_the_bundle_had_is_removed(machine: Machine) -> None:
    machine.run("bundle-remove", "editors")
    assert not machine.has("/usr/bin/edit")
    assert machine.has("/usr/lib/lib.so")
    assert machine.bundles() == {"os-core", "libs"}
    assert not (machine.state / "bundles/editors").exists()
    assert "files: 2 removed" in machine.out


def test_configuration_is_kept(machine: Machine) -> None:
    machine.run("bundle-remove", "editors")
    assert machine.read("/etc/edit") == "config"


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["os-core"], ExitCode.REQUIRED_BUNDLE),
        (["nonsense"], ExitCode.INVALID_BUNDLE),
        (["games"], ExitCode.BUNDLE_NOT_INSTALLED),
        (["libs"], ExitCode.REQUIRED_BUNDLE),
        (["editors", "games"], ExitCode.BUNDLE_NOT_INSTALLED),
        ([], ExitCode.INVALID_OPTION),
        (["--orphans", "editors"], ExitCode.INVALID_OPTION),
        (["--orphans", "--force"], ExitCode.INVALID_OPTION),
        (["--orphans", "--recursive"], ExitCode.INVALID_OPTION),
    ],
)
def test_what_cannot_be_removed_has_its_own_status_and_nothing_happens(
    machine: Machine, argv: list[str], status: int
) -> None:
    machine.run("bundle-remove", *argv, status=status)
    assert len(machine.errors) == 1
    assert machine.bundles() == {"os-core", "libs", "editors"}


def test_a_bundle_that_nobody_knows_is_left_alone(machine: Machine) -> None:
    (machine.root / "usr/share/clear/bundles/mine").touch()
    machine.run("bundle-remove", "mine", status=ExitCode.INVALID_BUNDLE)
    machine.run("bundle-remove", "editors")
    assert "mine" in machine.bundles()


def bundle(*includes: str) -> Manifest:
    return Manifest(30, 10, 0, 1, 0, includes=includes)


INSTALLED = {"os-core": bundle(), "a": bundle("b"), "b": bundle("c"), "c": bundle("os-core"), "d": bundle("os-core")}


def test_dependants_stop_a_removal() -> None:
    with pytest.raises(RequiredBundleError, match="needed by a, b"):
        choose(["c"], INSTALLED, {"a"}, force=False, recursive=False)


def test_force_takes_dependants_along() -> None:
    assert choose(["c"], INSTALLED, {"a"}, force=True, recursive=False) == {"a", "b", "c"}


def test_recursion_takes_dependencies_along() -> None:
    assert choose(["a"], INSTALLED, {"a", "d"}, force=False, recursive=True) == {"a", "b", "c"}
    assert choose(["a"], INSTALLED, {"a", "b"}, force=False, recursive=True) == {"a"}
