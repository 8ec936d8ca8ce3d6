"""The line of a terminal that shows how far a step is: bar, percentage, bytes, rate, time left; drawn with rich.

* A thread redraws it, so that the bar moves and the time left counts down while nothing is reported; a step of unknown
  length has a spinner.
* It is the last line of the output whenever it can be seen: whoever writes a line hides it first, and the next `show`
  brings it back below.
* The cursor stays visible: a process that is killed leaves no terminal behind that has to be healed.
* Colours follow NO_COLOR; on a narrow terminal the bar is short, and in the end the line is cut off.

`show`, `hide` and `close` are called by one thread at a time (the report has a lock).
"""

from __future__ import annotations

import time
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column
from rich.text import Text

from swupd.report import human_size

_REDRAWS_PER_SECOND = 8
_RATE_SECONDS = 10.0
"""The rate and the time left come from what happened in this time."""
_BAR_WIDTH = 24
"""Characters, at most."""


class Bar:
    """One step that takes its time."""

    def __init__(self, out: TextIO, text: str) -> None:
        self._out = out
        self._text = text
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            _Gauge(),
            _Numbers(),
            console=_Console(file=out, force_terminal=True, force_jupyter=False, highlight=False),
            refresh_per_second=_REDRAWS_PER_SECOND,
            speed_estimate_period=_RATE_SECONDS,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # Two counts, so that rich keeps a rate of each: the step's own units and the bytes.
        self._bytes = self._progress.add_task("", total=None, visible=False)
        self._step = self._progress.add_task(text, total=None, received=self._progress.tasks[0])
        self._due = 0.0

    def show(self, done: int, total: int, received: int = 0) -> None:
        """Show the bar with these numbers; total 0 = unknown."""
        now = time.monotonic()
        if now < self._due and (done < total or total <= 0):
            return
        self._due = now + 1 / _REDRAWS_PER_SECOND
        self._progress.update(self._bytes, completed=received)
        self._progress.update(self._step, completed=done, total=total if total > 0 else None)
        self._progress.start()

    @property
    def is_complete(self) -> bool:
        return self._progress.tasks[self._step].finished

    def hide(self) -> None:
        """Erase the bar; the cursor is where its line began."""
        self._progress.live.transient = True
        self._progress.stop()
        self._due = 0.0

    def close(self) -> None:
        """The last state stays as a line, if it tells anything; the cursor is below it."""
        if self._progress.tasks[self._step].total is None:
            self.hide()
            self._out.write(self._text + "\n")
        else:
            self._progress.start()
            self._progress.live.transient = False
            self._progress.stop()


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 (part of the interface)
        return False


class _Gauge(ProgressColumn):
    """A bar, or something that turns while the total is unknown."""

    def __init__(self) -> None:
        super().__init__(Column(max_width=_BAR_WIDTH))
        self._spinner = Spinner("line")

    def render(self, task: Task) -> RenderableType:
        if task.total is None:
            return self._spinner.render(task.get_time())
        return ProgressBar(task.total, task.completed)


class _Numbers(ProgressColumn):
    """What is known of: 45 %  12.3 MB  4.5 MB/s  0:03 left."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        received: Task = task.fields["received"]
        parts = []
        if task.total is not None:
            parts.append(f"{int(task.percentage):3d} %")
        if received.completed:
            parts.append(f"{human_size(received.completed):>9}")
        if task.finished:
            parts.append(f"in {task.finished_time or 0:.1f} s")
        else:
            if received.completed and received.speed:
                parts.append(f"{human_size(received.speed):>9}/s")
            if task.time_remaining is not None:
                minutes, seconds = divmod(int(task.time_remaining), 60)
                parts.append(f"{minutes}:{seconds:02d} left")
        return Text("  ".join(parts))
