"""The power fails in the middle of an update, at any write to the disk.

What was written is recorded block by block (`power_cut`), and each prefix is what a disk may hold afterwards. An
update of this size is written in very few pieces if the kernel is left alone; so it is also recorded with the whole
file system written out every few calls.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.transaction import playground, power_cut
from tests.transaction.playground import Playground, difference
from tests.transaction.power_cut import Write
from tests.transaction.proof import Case, Points, sample

GetCase = Callable[[str], Case]
RARELY, OFTEN = 0, 6
"""Calls between two times that everything is written out."""
_ENDING_BLOCKS = 100


@dataclass(frozen=True)
class Recording:
    """What a disk was given during an update."""

    first: Path
    """The image before."""
    log: Path
    writes: Sequence[Write]
    at_exit: int
    """How many writes there were when swupd had ended."""

    @property
    def around_barriers(self) -> list[int]:
        """The prefixes that end before and after each point where the disk promises to have everything."""
        barriers = [number for number, write in enumerate(self.writes) if write.is_barrier]
        return sorted({prefix for number in barriers for prefix in (number, number + 1)})

    @property
    def between(self) -> list[int]:
        return sorted(set(range(len(self.writes) + 1)) - set(self.around_barriers))

    @property
    def ending(self) -> list[int]:
        """The last of them, when the files are in place and the journal ends."""
        return list(range(self.at_exit - _ENDING_BLOCKS, len(self.writes) + 1))


class Recordings:
    """Records updates in one directory, each kind once, and replays them."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._url = url
        self._made: dict[tuple[str, int], Recording] = {}

    def get(self, file_system: str, sync_every: int) -> Recording:
        """An update during which everything is written out after each so many calls."""
        if (file_system, sync_every) not in self._made:
            first = self._directory / f"first-{file_system}"
            if not first.exists():
                self._make_first(first, file_system)
            self._made[file_system, sync_every] = self._record(first, sync_every)
        return self._made[file_system, sync_every]

    def machines(self, recording: Recording, prefixes: Sequence[int]) -> Iterator[tuple[int, Playground]]:
        """The machine as it is started again after each of these numbers of writes."""
        copy, disk = self._directory / "copy", self._directory / "disk"
        playground.command("cp", "--sparse=always", str(recording.first), str(copy))
        for prefix in power_cut.replay(copy, recording.log, recording.writes, sorted(prefixes), disk):
            with playground.mounted(disk, self._directory / "top") as top:
                yield prefix, Playground(top, self._url)

    def _make_first(self, image: Path, file_system: str) -> None:
        playground.make_file_system(image, power_cut.IMAGE_BYTES, file_system)
        with playground.mounted(image, self._directory / "top") as top:
            (top / "run").mkdir()
            Playground(top, self._url).install_ten()

    def _record(self, first: Path, sync_every: int) -> Recording:
        image, log = self._directory / "recorded", self._directory / f"log-{first.name}-{sync_every}"
        playground.command("cp", "--sparse=always", str(first), str(image))
        with power_cut.recorded(image, log, self._directory / "top") as recorder:
            done = Playground(recorder.top, self._url).swupd("update", sync_every=sync_every)
            assert done.status == 0, done
            position = recorder.position()
        image.unlink()
        writes = power_cut.read_log(log)
        return Recording(first, log, writes, sum(write.end <= position for write in writes))


@pytest.fixture(scope="module")
def recordings(needs_mounts: None, url: str) -> Iterator[Recordings]:
    if shutil.which(power_cut.PROGRAM) is None or not Path("/dev/fuse").exists():
        pytest.skip(f"a disk is recorded with {power_cut.PROGRAM} and FUSE")
    with playground.in_memory() as directory:
        yield Recordings(directory, url)


@pytest.mark.parametrize("kind", [("btrfs", RARELY), ("btrfs", OFTEN), ("ext4", OFTEN)], ids=str)
def test_a_power_cut_leaves_a_system_that_the_next_command_makes_old_or_new(
    recordings: Recordings, case: GetCase, points: Points, chance: random.Random, kind: tuple[str, int]
) -> None:
    recording = recordings.get(*kind)
    prefixes = sample(recording.around_barriers, 6, chance) + sample(recording.between, 5, chance)
    prefixes += sample(recording.ending, 4, chance)
    cut(recordings, recording, prefixes, case("update"), points)


@pytest.mark.parametrize("file_system", ["btrfs", "ext4"])
def test_an_update_that_said_to_be_done_survives_a_power_cut(
    recordings: Recordings, case: GetCase, file_system: str
) -> None:
    recording = recordings.get(file_system, RARELY)
    new = case("update").new.root
    for _, machine in recordings.machines(recording, [recording.at_exit]):
        found = machine.look().root
        assert found == new, difference(found, new)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("kind", [(name, often) for name in ("btrfs", "ext4") for often in (RARELY, OFTEN)], ids=str)
def test_power_cuts_at_many_points(
    recordings: Recordings, case: GetCase, points: Points, chance: random.Random, kind: tuple[str, int]
) -> None:
    recording = recordings.get(*kind)
    prefixes = sample(recording.around_barriers, 300, chance) + sample(recording.between, 300, chance)
    cut(recordings, recording, prefixes, case("update"), points)


def cut(recordings: Recordings, recording: Recording, prefixes: Sequence[int], case: Case, points: Points) -> None:
    """Start the machine after each of these numbers of writes and see that it comes right."""
    for prefix, machine in recordings.machines(recording, prefixes):
        complaint = case.elsewhere(machine).judge_recovered()
        at = f"the power failed after {prefix} of {len(recording.writes)} blocks"
        points.add("power cut", complaint and f"{at}: {complaint}")
    points.judge()
