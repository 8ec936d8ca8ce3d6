from __future__ import annotations

from typing import Any

Bundles = dict[str, Any]
Machine = Any
Publisher = Any


def test_staged_objects_go_and_current_manifests_stay(machine: Machine, published: Publisher, ten: Bundles) -> None:
    ten["os-core"].files["/usr/bin/core"] = "new"
    published.publish(20, ten)
    machine.run("update", "--download")
    machine.run("clean")
    assert machine.out.startswith("")
    (content,) = (machine.state / "cache").iterdir()
    assert not list((content / "staged").iterdir())
    assert [path.name for path in (content / "manifest").iterdir()] == ["10"]


def test_a_dry_run_prints_the_paths_and_removes_nothing(machine: Machine) -> None:
    (content,) = (machine.state / "cache").iterdir()
    (content / "staged/leftover").write_bytes(bytes(1500))
    machine.run("clean", "--dry-run")
    assert machine.out.splitlines() == [f"{content}/staged/leftover", "1 file would be removed, 1.5 kB freed"]
    assert (content / "staged/leftover").exists()


def test_everything_goes_on_request(machine: Machine) -> None:
    machine.run("clean", "--all", "--quiet")
    assert machine.out == ""
    assert not list(machine.state.rglob("Manifest*"))
    machine.run("bundle-list", "--status", "--quiet")
    assert "editors: explicitly installed" in machine.out


def test_neither_server_nor_certificate_nor_version_is_needed(machine: Machine) -> None:
    (machine.root / "usr/lib/os-release").unlink()
    machine.run("clean", "--url", "https://example.invalid", "--certpath", "/nonexistent")


def test_every_command_that_downloads_keeps_the_cache_within_its_limit(
    machine: Machine, published: Publisher, ten: Bundles
) -> None:
    ten["os-core"].files["/usr/bin/core"] = "new" * 1000
    published.publish(20, ten)
    machine.run("update", "--download")
    (content,) = (machine.state / "cache").iterdir()
    assert list((content / "staged").iterdir())
    machine.run("update", "--download", "--cache-limit", "1k")
    assert not [path for path in (content / "staged").iterdir() if path.stat().st_size > 1000]
    assert (content / "manifest/10/Manifest.MoM").exists()
