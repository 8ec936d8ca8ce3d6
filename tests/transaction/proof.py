"""One point of the proof: a command is interrupted at one call, and swupd runs again.

What has to be true, where "old" and "new" are the whole root before the command and after one that nobody disturbed:

* A command that met a single error leaves exactly the old root or exactly the new one when it ends; it says what went
  wrong in one line and has a documented exit status; with status 0 the root is the new one.
* After a kill, or an error that stays (a full disk, a broken one), the next command as root of whatever kind has made
  the root exactly old or exactly new when it ends, and the tracking files fit to it. The same is true if that command
  is killed or fails too, for the one that follows.
* The command itself then succeeds from there, with exactly the new root, nothing to diagnose and no journal left.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import cycle
from typing import Self

import pytest

from swupd.errors import ExitCode
from tests.transaction.playground import Outcome, Playground, State, difference
from tests.transaction.seam import KILL, Call, Interference

FOLLOW_UPS = (("clean", "--dry-run"), ("bundle-list",), ("diagnose", "--quiet"), ("check-update",))
"""Commands that do not change the OS, and yet have to put an interrupted installation right."""
_SIGNALLED = 128
_DOCUMENTED = frozenset(ExitCode) - {ExitCode.UNEXPECTED} | {_SIGNALLED + signal.SIGTERM}
_FOLLOWED = frozenset({ExitCode.OK, ExitCode.NO})
SHOWN_COMPLAINTS = 8
SEED_VARIABLE = "SWUPD_PROOF_SEED"


@dataclass
class Points:
    """How many were run, by what was done; and what was found."""

    run: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def add(self, kind: str, complaint: str) -> None:
        self.run[kind] = self.run.get(kind, 0) + 1
        if complaint:
            self.complaints.append(f"{kind}: {complaint}")

    def judge(self) -> None:
        """Fail, with the first complaints."""
        if self.complaints:
            shown = "\n\n".join(self.complaints[:SHOWN_COMPLAINTS])
            pytest.fail(f"{len(self.complaints)} points ({SEED_VARIABLE}={seed()}):\n\n{shown}", pytrace=False)


def seed() -> int:
    """What the choice of points depends on: always the same, unless the environment gives another one."""
    return int(os.environ.get(SEED_VARIABLE, "1"))


class Case:
    """A command on a machine. It is run once undisturbed, to know what it does and its calls.

    setup: the state that is restored. before: a command that is run then, undisturbed. again: whether the command can
    be run once more when all is done already. tolerant: whether a path that cannot be changed keeps no other one from
    it: it says so by its status, and each path by itself is old or new.
    """

    def __init__(
        self,
        ground: Playground,
        command: Sequence[str],
        *,
        setup: str,
        before: Sequence[str] = (),
        again: bool = True,
        tolerant: bool = False,
    ) -> None:
        self._ground = ground
        self._setup = setup
        self._before = tuple(before)
        self._command = tuple(command)
        self._again = again
        self._tolerant = tolerant
        self._follow_ups = cycle(FOLLOW_UPS)
        self._begin()
        self.old = ground.look()
        done = ground.swupd(*command)
        assert done.status == 0, done
        self.new = ground.look()
        assert self.new.root != self.old.root, "this command changes nothing"
        assert ground.is_settled()
        self._diagnosis = ground.swupd("diagnose", "--quiet")
        self.calls: tuple[Call, ...] = done.calls
        self.looks: tuple[Call, ...] = done.looks
        self.bypassed = done.bypassed

    def _begin(self) -> None:
        # The machine that is restored is another one for a rollback; so what that needs is always done anew.
        self._ground.restore(self._setup)
        if self._before:
            done = self._ground.swupd(*self._before)
            assert done.status == 0, done

    @property
    def commit(self) -> range:
        """The numbers of the calls from the first one that changes a path of the root that exists."""
        names = ("rename", "renameat2", "unlink", "rmdir")
        first = next(n for n, call in enumerate(self.calls, 1) if call.in_root and call.name in names)
        return range(first, len(self.calls) + 1)

    def elsewhere(self, ground: Playground) -> Self:
        """The same rules for another machine, which has been interrupted in its own way."""
        other = copy(self)
        other._ground = ground
        return other

    def prove(self, interference: Interference) -> tuple[bool, str]:
        """Run one point: (whether its call was reached, what is wrong or nothing)."""
        self._begin()
        first = self._ground.swupd(*self._command, interference=interference)
        complaint = self._judge(first, interference) if first.hit else self._judge_end(first)
        return bool(first.hit), complaint and f"{interference} [{first.hit}]: {complaint}"

    def prove_twice(
        self, first: Interference, choose: Callable[[int], Iterable[Interference]]
    ) -> Iterable[tuple[str, str]]:
        """Kill the command at one call, and disturb the recovery from there at chosen ones: (what, complaint) of each.

        choose: is given how many calls the recovery makes.
        """
        self._begin()
        self._ground.swupd(*self._command, interference=first)
        recovery = self._ground.swupd(*FOLLOW_UPS[0])
        for second in choose(len(recovery.calls)):
            self._begin()
            killed = self._ground.swupd(*self._command, interference=first)
            disturbed = self._ground.swupd(*FOLLOW_UPS[0], interference=second)
            complaint = _expect(disturbed, _DOCUMENTED, killed=second.error == KILL and bool(disturbed.hit))
            if not complaint and self._tolerant and second.error != KILL:
                complaint = self._judge_each_path() or self._judge_end(self._ground.swupd(*self._command))
            complaint = complaint or self.judge_recovered()
            what = f"{first} [{killed.hit}], then {second} [{disturbed.hit}]"
            yield what, complaint and f"{what}: {complaint}"

    def judge_recovered(self) -> str:
        """What is wrong after the next command, or nothing."""
        follow_up = next(self._follow_ups)
        recovery = self._ground.swupd(*follow_up)
        found = self._ground.look()
        complaint = _expect(recovery, _FOLLOWED) or self._judge_side(found, f"after {' '.join(follow_up)}, ")
        if not complaint and not self._ground.is_settled():
            complaint = f"after {' '.join(follow_up)} there is still a journal"
        if not complaint and found not in (self.old, self.new):
            complaint = f"the bundles {found.tracked} are tracked, which does not fit to the root"
        return complaint or self._judge_rest(found)

    # -- the rules -------------------------------------------------------------------------------------------------

    def _judge(self, first: Outcome, interference: Interference) -> str:
        if interference.error == KILL:
            return _expect(first, (), killed=True) or self.judge_recovered()
        complaint = _expect(first, _DOCUMENTED)
        if not complaint and self._tolerant and first.status == ExitCode.INCOMPLETE:
            return self._judge_each_path() or self._judge_end(self._ground.swupd(*self._command))
        if complaint or interference.lasting:
            return complaint or self.judge_recovered()
        found = self._ground.look()
        if first.status == 0 and found.root != self.new.root:
            return f"it says that all went well, but {difference(found.root, self.new.root)}"
        complaint = self._judge_side(found, "after it, ")
        if not complaint and not self._again and (found.root == self.new.root or not self._ground.is_settled()):
            return self.judge_recovered()
        return complaint or self._judge_rest(found)

    def _judge_side(self, found: State, when: str) -> str:
        """Exactly old, or exactly new."""
        if found.root in (self.old.root, self.new.root):
            return ""
        old, new = (difference(found.root, state.root) for state in (self.old, self.new))
        return f"{when}neither old: {old}\nnor new: {new}"

    def _judge_each_path(self) -> str:
        found, old, new = self._ground.look().root, self.old.root, self.new.root
        odd = [path for path in found | old | new if found.get(path) not in (old.get(path), new.get(path))]
        return f"neither old nor new: {', '.join(odd)}" if odd else ""

    def _judge_rest(self, found: State) -> str:
        """The command itself succeeds now."""
        if found == self.new and not self._again:
            return ""
        return self._judge_end(self._ground.swupd(*self._command))

    def _judge_end(self, last: Outcome) -> str:
        if last.status != 0:
            return f"the command fails afterwards: {last}"
        found = self._ground.look()
        if found.root != self.new.root:
            return f"after another run it is not new: {difference(found.root, self.new.root)}"
        if found != self.new:
            return f"after another run the bundles {found.tracked} are tracked"
        if not self._ground.is_settled():
            return "after another run there is still a journal"
        diagnosis = self._ground.swupd("diagnose", "--quiet")
        if (diagnosis.status, diagnosis.output) != (self._diagnosis.status, self._diagnosis.output):
            return f"diagnose finds something: {diagnosis}"
        return ""


def _expect(outcome: Outcome, statuses: Iterable[int], *, killed: bool = False) -> str:
    if killed:
        return "" if outcome.status < 0 else f"it was not killed: {outcome}"
    if outcome.status not in frozenset(statuses):
        return f"undocumented {outcome}"
    errors = [line for line in outcome.output.splitlines() if line.startswith("Error: ")]
    if outcome.status > ExitCode.NO and len(errors) != 1:
        return f"not one line about an error: {outcome}"
    return ""


def sample(numbers: Sequence[int], count: int, chance: random.Random) -> list[int]:
    """`count` numbers, evenly spread from a start by chance; all of them if there are fewer."""
    if count >= len(numbers):
        return list(numbers)
    step = len(numbers) / count
    start = chance.random() * step
    return [numbers[int(start + n * step)] for n in range(count)]
