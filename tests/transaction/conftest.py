"""A machine to interrupt, and the number of points that were run, at the end of pytest's output."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.transaction import playground, scenario
from tests.transaction.playground import Playground
from tests.transaction.proof import SEED_VARIABLE, Case, Points, seed

_COUNTS = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def chance() -> random.Random:
    """Chooses the points of a sample."""
    return random.Random(seed())


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where versions 10 and 20 are published."""
    return _published(tmp_path_factory.mktemp("www"), scenario.bundles)


@pytest.fixture(scope="session")
def other_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where another publisher has versions 10 and 20 of what he makes."""
    return _published(tmp_path_factory.mktemp("other"), scenario.others)


def _published(target: Path, content: Callable[[int], dict[str, scenario.Bundle]]) -> str:
    publisher = scenario.Publisher(target, content)
    publisher.publish(10)
    publisher.publish(20)
    return publisher.url


@pytest.fixture(scope="session")
def needs_mounts() -> None:
    """Skips where a machine cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("commands that change a system need root")
    with playground.in_memory() as directory:
        try:
            playground.make_file_system(directory / "image", playground.IMAGE_BYTES)
            with playground.mounted(directory / "image", directory / "mounted"):
                pass
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no btrfs can be mounted here: {error}")


@pytest.fixture(scope="session")
def ground(needs_mounts: None, url: str) -> Iterator[Playground]:
    """A machine with version 10 in the state "ten"."""
    with _ground(url, apart=False) as machine:
        yield machine


@pytest.fixture(scope="session")
def apart(needs_mounts: None, url: str) -> Iterator[Playground]:
    """The same with the state directory on another file system than the root."""
    with _ground(url, apart=True) as machine:
        yield machine


@contextmanager
def _ground(url: str, *, apart: bool) -> Iterator[Playground]:
    with playground.in_memory() as directory:
        playground.make_file_system(directory / "image", playground.IMAGE_BYTES)
        with playground.mounted(directory / "image", directory / "mounted") as top:
            machine = Playground(top, url, apart=apart)
            machine.install_ten()
            machine.keep("ten")
            yield machine


@pytest.fixture(scope="session")
def setup(other_url: str) -> Callable[[Playground, str], str]:
    """Sees that a state of a machine is there to be restored, and returns its name."""
    made: set[tuple[Playground, str]] = set()

    def get(ground: Playground, name: str) -> str:
        if name != "ten" and (ground, name) not in made:
            ground.restore("ten")
            if name == "with a repository":
                _add_repository(ground, other_url)
            else:
                _SETUPS[name](ground)
            ground.keep(name)
            made.add((ground, name))
        return name

    return get


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest, setup: Callable[[Playground, str], str]) -> Callable[..., Case]:
    """The cases by their names, on the machine `ground` or `apart`; each one is made once."""
    made: dict[tuple[str, str], Case] = {}

    def get(name: str, machine: str = "ground") -> Case:
        if (name, machine) not in made:
            ground = request.getfixturevalue(machine)
            options = _CASES[name]
            setup(ground, options["setup"])
            made[name, machine] = Case(ground, **options)
        return made[name, machine]

    return get


_CASES: dict[str, dict[str, Any]] = {
    "update": {"setup": "ten", "command": ["update"]},
    "install": {"setup": "downloaded", "command": ["update"]},
    "bundle-add": {"setup": "ten", "command": ["bundle-add", "extra"]},
    "bundle-remove": {"setup": "ten", "command": ["bundle-remove", "optional"], "again": False},
    "repair": {"setup": "damaged", "command": ["repair"], "tolerant": True},
    "rollback": {"setup": "downloaded", "before": ["update"], "command": ["rollback"], "again": False},
}


def _download(ground: Playground) -> None:
    assert ground.swupd("update", "--download").status == 0


def _damage(ground: Playground) -> None:
    """What repair has to put right: content, types, attributes, and what is missing."""
    base = ground.root / "usr/lib/base"
    for name in ("00", "01", "02"):
        (base / "changed" / name).write_text("damaged")
    (base / "changed/03").unlink()
    (base / "changed/04").chmod(0o600)
    (base / "odd/setuid").unlink()
    (base / "odd/setuid").symlink_to("secret")
    (base / "links/0").unlink()
    (base / "attributes/2").chmod(0o700)
    (base / "types/directory-to-link/a").unlink()


def _empty(ground: Playground) -> None:
    for directory in (ground.root, ground.state):
        shutil.rmtree(directory)
        directory.mkdir()


def _install_units(ground: Playground) -> None:
    for unit in ("swupd-update.service", "swupd-update.timer"):
        scenario.put(
            ground.root, {f"/usr/lib/systemd/system/{unit}": scenario.file("[Service]\nExecStart=/bin/true\n")}
        )


def _add_repository(ground: Playground, url: str) -> None:
    for arguments in (("add", "first", url), ("bundle-add", "optional")):
        done = ground.swupd("3rd-party", *arguments)
        assert done.status == 0, done


_SETUPS = {
    "downloaded": _download,
    "damaged": _damage,
    "nothing": _empty,
    "with units": _install_units,
}


@pytest.fixture
def points(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Points]:
    """Where a test puts its points; how many there were is reported at its end."""
    found = Points()
    yield found
    for kind, count in found.run.items():
        record_property(kind, count)
        request.config.stash.setdefault(_COUNTS, Counter())[f"{request.node.originalname}: {kind}"] += count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_COUNTS, Counter[str]())
    if counts:
        terminalreporter.section(f"interrupted at {counts.total()} points ({SEED_VARIABLE}={seed()})")
        for what, count in counts.items():
            terminalreporter.line(f"{count:6} {what}")
