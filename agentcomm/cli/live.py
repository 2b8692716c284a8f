"""Live progress: items done, score so far, tokens, cost and time left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentcomm.evaluation.run import Progress


class Live:
    """Live progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, *, show: bool = True, every_s: float = 10.0) -> None:
        from rich.console import Console

        self.title = title
        self.every_s = every_s
        self.shown = 0.0
        self.last: Progress | None = None
        self.console = Console(stderr=True)
        self.bar: Any = None
        self.bars: dict[str, Any] = {}
        self.tty = show and self.console.is_terminal
        self.lines = show and not self.tty

    def __enter__(self) -> Live:
        if self.tty:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.bar.start()
        if self.title:
            self.begin(self.title)
        return self

    def begin(self, title: str) -> None:
        """Go on to the next of several runs: what was shown of the last one stays."""
        self._end()
        self.title, self.last, self.shown = title, None, time.monotonic()
        if self.bar is not None:
            self.task_id = self.bar.add_task(title, total=None, note="")

    def __call__(self, progress: Progress) -> None:
        self.last = progress
        if self.bar is not None:
            self.bar.update(
                self.task_id, total=progress.total, completed=progress.done, note=describe(progress)
            )
        elif self.lines and time.monotonic() - self.shown > self.every_s:
            self.shown = time.monotonic()
            sys.stderr.write(f"{self.title}: {progress.done}/{progress.total} {describe(progress)}\n")

    def tell(self, title: str, progress: Progress) -> None:
        """Show one of several runs that go beside each other: a bar for each, or a line when it ends."""
        if self.bar is not None:
            if title not in self.bars:
                self.bars[title] = self.bar.add_task(title, total=None, note="")
            self.bar.update(
                self.bars[title], total=progress.total, completed=progress.done, note=describe(progress)
            )
        elif self.lines and (progress.done == progress.total or time.monotonic() - self.shown > self.every_s):
            self.shown = time.monotonic()
            sys.stderr.write(f"{title}: {progress.done}/{progress.total} {describe(progress)}\n")

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        self._end()

    def _end(self) -> None:
        if self.lines and self.last is not None:
            sys.stderr.write(f"{self.title}: {self.last.done}/{self.last.total} {describe(self.last)}\n")


def describe(progress: Progress) -> str:
    """Score so far, tokens, cost and time left, in one line."""
    parts = []
    if progress.score is not None:
        parts.append(f"score {progress.score:.2f}")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    parts.append(f"{progress.input_tokens + progress.output_tokens:,} tokens in {progress.calls:,} calls")
    if progress.cost is not None:
        parts.append(f"${progress.cost:.4f}")
    left = progress.seconds_left
    if left is not None and progress.done < progress.total:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
