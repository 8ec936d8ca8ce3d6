"""Commands that are killed, or meet an error, at one call that changes a file system.

The quick tests take every call of the commit of an update, and a sample of all the rest; the nightly ones take every
call, and samples with a new seed each time.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable

import pytest

from tests.transaction import scenario
from tests.transaction.proof import Case, Points, sample
from tests.transaction.seam import END, KILL, NAMES, Interference

ERRORS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ENOMEM)
LASTING = (errno.EIO, errno.ENOSPC)
OTHERS = ("bundle-add", "bundle-remove", "repair", "rollback")

GetCase = Callable[[str], Case]


def run(case: Case, kind: str, interferences: Iterable[Interference], points: Points) -> None:
    for interference in interferences:
        reached, complaint = case.prove(interference)
        if reached or complaint:
            points.add(kind, complaint)
    points.judge()


def before_commit(case: Case) -> range:
    return range(1, case.commit.start)


def test_an_undisturbed_update_brings_all_of_the_new_version_and_nothing_else(case: GetCase) -> None:
    update = case("update")
    ours = scenario.whole(20, ["os-core", "base", "optional", "dependency"])
    expected = scenario.with_parents(scenario.FOREIGN) | ours | scenario.FOREIGN
    assert update.new.root.keys() == expected.keys() | {"", *scenario.KEPT}
    for path, wanted in expected.items():
        kind, mode, uid, gid, content, _ = update.new.root[path]
        data = wanted.content.encode() if isinstance(wanted.content, str) else wanted.content or b""
        assert (kind, content, uid, gid) == (wanted.kind, data, wanted.uid, wanted.gid), path
        assert kind == "l" or mode == wanted.mode, path


@pytest.mark.parametrize("command", ["update", *OTHERS])
def test_no_call_that_changes_a_file_system_passes_by(case: GetCase, command: str) -> None:
    lock_and_null = ("/swupd_lock", "/dev/null")
    assert [call for call in case(command).bypassed if not call.endswith(lock_and_null)] == []


# -- a sample of all calls ---------------------------------------------------------------------------------------------


def test_an_update_that_is_killed_while_it_stages(case: GetCase, points: Points, chance: random.Random) -> None:
    update = case("update")
    run(update, "kill", map(Interference, sample(before_commit(update), 30, chance)), points)


def test_an_update_that_meets_an_error_while_it_stages(case: GetCase, points: Points, chance: random.Random) -> None:
    update = case("update")
    errors = (Interference(n, chance.choice(ERRORS)) for n in sample(before_commit(update), 50, chance))
    run(update, "error", errors, points)


def test_an_update_that_is_killed_while_it_commits(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")
    run(install, "kill", map(Interference, install.commit), points)


def test_an_update_that_meets_an_error_while_it_commits(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")
    errors = (Interference(n, chance.choice(ERRORS)) for n in install.commit)
    run(install, "error", errors, points)


def test_an_update_on_a_disk_that_stays_full_or_broken(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")
    numbers = sample(range(1, len(install.calls) + 1), 40, chance)
    run(install, "lasting error", (Interference(n, chance.choice(LASTING), lasting=True) for n in numbers), points)


def test_an_update_that_is_asked_to_end(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")
    numbers = sample(range(1, len(install.calls) + 1), 25, chance)
    run(install, "signal", (Interference(n, END) for n in numbers), points)


def test_an_update_that_cannot_look_at_something(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")
    numbers = sample(range(1, len(install.looks) + 1), 30, chance)
    run(install, "error of a look", (Interference(n, chance.choice(ERRORS), looking=True) for n in numbers), points)


def test_a_recovery_that_is_interrupted_too(case: GetCase, points: Points, chance: random.Random) -> None:
    install = case("install")

    def choose(calls: int) -> list[Interference]:
        numbers = sample(range(1, calls + 1), 4, chance)
        return [Interference(n, chance.choice((KILL, KILL, *ERRORS))) for n in numbers]

    for number in sample(install.commit, 10, chance):
        for _, complaint in install.prove_twice(Interference(number), choose):
            points.add("interrupted recovery", complaint)
    points.judge()


@pytest.mark.parametrize("command", ["install", *OTHERS])
def test_a_state_directory_on_another_file_system(
    case: Callable[..., Case], points: Points, chance: random.Random, command: str
) -> None:
    found = case(command, "apart")
    numbers = sample(range(1, len(found.calls) + 1), 30, chance)
    run(found, "kill or error", (Interference(n, chance.choice((KILL, END, *ERRORS))) for n in numbers), points)


@pytest.mark.parametrize("command", OTHERS)
def test_another_command_that_is_interrupted(
    case: GetCase, points: Points, chance: random.Random, command: str
) -> None:
    found = case(command)
    numbers = sample(range(1, len(found.calls) + 1), 16, chance)
    run(found, "kill or error", (Interference(n, chance.choice((KILL, END, *ERRORS))) for n in numbers), points)


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("error", [KILL, END, *ERRORS], ids=lambda error: NAMES.get(error) or errno.errorcode[error])
@pytest.mark.parametrize("machine", ["ground", "apart"])
@pytest.mark.parametrize("command", ["update", *OTHERS])
def test_every_call(case: Callable[..., Case], points: Points, command: str, *, machine: str, error: int) -> None:
    found = case("install" if (command, machine) == ("update", "apart") else command, machine)
    everything = (Interference(n, error) for n in range(1, len(found.calls) + 1))
    run(found, NAMES.get(error) or errno.errorcode[error], everything, points)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("error", LASTING, ids=errno.errorcode.get)
@pytest.mark.parametrize("command", ["install", *OTHERS])
def test_every_call_from_one_on(case: GetCase, points: Points, command: str, error: int) -> None:
    found = case(command)
    everything = (Interference(n, error, lasting=True) for n in range(1, len(found.calls) + 1))
    run(found, f"lasting {errno.errorcode[error]}", everything, points)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("command", ["update", *OTHERS])
def test_every_look(case: GetCase, points: Points, command: str) -> None:
    found = case(command)
    errors = (Interference(n, ERRORS[n % len(ERRORS)], looking=True) for n in range(1, len(found.looks) + 1))
    run(found, "error of a look", errors, points)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("command", ["install", *OTHERS])
def test_a_recovery_that_is_interrupted_at_many_calls(
    case: GetCase, points: Points, chance: random.Random, command: str
) -> None:
    found = case(command)

    def choose(calls: int) -> list[Interference]:
        numbers = sample(range(1, calls + 1), 20, chance)
        return [Interference(n, error) for n in numbers for error in (KILL, chance.choice(ERRORS))]

    for number in sample(found.commit, 60, chance):
        for _, complaint in found.prove_twice(Interference(number), choose):
            points.add("interrupted recovery", complaint)
    points.judge()
