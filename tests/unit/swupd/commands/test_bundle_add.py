from __future__ import annotations

from typing import Any

import pytest

from swupd.errors import ExitCode

Bundle = Any
Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def test_a_bundle_brings_its_dependencies(bare: Machine) -> None:
    bare.run("os-install", "--no-scripts")
    bare.run("bundle-add", "editors", "--no-scripts")
    assert bare.bundles() == {"os-core", "libs", "editors", "docs"}
    assert "Installed editors and dependencies (docs, libs)" in bare.out


def test_optional_dependencies_can_be_left_out(bare: Machine) -> None:
    bare.run("os-install", "--no-scripts")
    bare.run("bundle-add", "editors", "--skip-optional", "--no-scripts")
    assert "docs" not in bare.bundles()


def test_only_what_was_asked_for_is_tracked(bare: Machine) -> None:
    bare.run("os-install", "--no-scripts")
    bare.run("bundle-add", "editors", "--no-scripts")
    assert {path.name for path in (bare.state / "bundles").iterdir()} >= {"editors"}
    assert not (bare.state / "bundles/libs").exists()


def test_an_experimental_bundle_is_announced(machine: Machine) -> None:
    machine.run("bundle-add", "games", "--no-scripts")
    assert "Warning: bundle games is experimental" in machine.err


def test_configuration_is_created_where_there_is_none(bare: Machine) -> None:
    bare.run("os-install", "--no-scripts")
    bare.run("bundle-add", "editors", "--no-scripts")
    assert bare.read("/etc/edit") == "config"


def test_configuration_that_is_there_is_kept(bare: Machine) -> None:
    bare.run("os-install", "--no-scripts")
    (bare.root / "etc/edit").write_text("mine")
    bare.run("bundle-add", "editors", "--no-scripts")
    assert bare.read("/etc/edit") == "mine"


def test_a_file_that_an_installed_bundle_has_too_is_put_right(
    machine: Machine, published: Publisher, ten: Bundles, bundle: Bundle
) -> None:
    ten["more"] = bundle({"/usr/bin/core": "core"}, [])
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    (machine.root / "usr/bin/core").write_text("broken")
    machine.run("bundle-add", "more", "--no-scripts")
    assert machine.read("/usr/bin/core") == "core"


def test_a_file_that_an_installed_bundle_has_differently_is_left_alone(
    machine: Machine, published: Publisher, ten: Bundles, bundle: Bundle
) -> None:
    ten["more"] = bundle({"/usr/bin/core": "another"}, [])
    published.publish(20, ten)
    machine.run("update", "--no-scripts")
    machine.run("bundle-add", "more", "--no-scripts")
    assert "bundles disagree about /usr/bin/core" in machine.err
    assert machine.read("/usr/bin/core") == "core"


@pytest.mark.parametrize("name", ["nonsense", "MoM", "full", "../libs", ""])
def test_what_is_no_bundle_is_3(machine: Machine, name: str) -> None:
    machine.run("bundle-add", "--no-scripts", "--", name, status=ExitCode.INVALID_BUNDLE)
    assert machine.errors == [f"Error: there is no bundle {name} in version 10"]


def test_no_name_at_all_is_15(machine: Machine) -> None:
    machine.run("bundle-add", status=ExitCode.INVALID_OPTION)
