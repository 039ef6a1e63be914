"""What is shown while a run goes on: a live bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from experiments.sequence import Epoch, Report

SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Context manager: entering gives the function that shows each finished epoch."""

    def __init__(
        self,
        console: Console,
        method: str,
        task_names: Sequence[str],
        epochs: int,
        seeds: Sequence[int],
    ) -> None:
        self._console = console
        self._method = method
        self._task_names = task_names
        self._epochs = epochs
        self._seeds = seeds
        self._started: tuple[float, int] | None = None  # time and epochs done at the first report
        self._last_line = float("-inf")
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None))
        self._bar = Progress(*columns, console=console, transient=True, expand=True)
        self._bar_task = self._bar.add_task(f"{method}: compiling", total=self._total)

    @property
    def _total(self) -> int:
        return len(self._seeds) * len(self._task_names) * self._epochs

    def __enter__(self) -> Report:
        if self._console.is_terminal:
            self._bar.start()
        return self.report

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def report(self, epoch: Epoch) -> None:
        """Show one finished epoch."""
        tasks_before = self._seeds.index(epoch.seed) * len(self._task_names) + epoch.task
        done = tasks_before * self._epochs + epoch.epoch + 1
        left = self._seconds_left(done)
        line = self._line(epoch, left)
        if self._console.is_terminal:
            self._bar.update(self._bar_task, completed=done, description=self._short(epoch, left))
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES or done == self._total:
            self._last_line = time.monotonic()
            self._console.print(line, highlight=False, soft_wrap=True)

    def _seconds_left(self, done: int) -> float | None:
        """From the pace since the first epoch seen, which a resumed run does not start at 1."""
        now = time.monotonic()
        if self._started is None:
            self._started = (now, done)
            return None
        then, done_then = self._started
        # A search goes through a task's epochs several times.
        return (self._total - done) * (now - then) / max(1, done - done_then)

    def _short(self, epoch: Epoch, seconds_left: float | None) -> str:
        """One epoch so short that it fits beside the bar into 80 columns."""
        left = "" if seconds_left is None else f", {clock(seconds_left)} left"
        return (
            f"{self._method} seed {epoch.seed}, task {self._task_names[epoch.task]}, epoch "
            f"{epoch.epoch + 1}/{self._epochs}: loss {epoch.loss:.4f}, "
            f"{100 * epoch.accuracy:.2f} %{left}"
        )

    def _line(self, epoch: Epoch, seconds_left: float | None) -> str:
        """One epoch in words."""
        left = "" if seconds_left is None else f"  {clock(seconds_left)} left"
        return (
            f"{self._method}  seed {epoch.seed}  task {self._task_names[epoch.task]} "
            f"({epoch.task + 1}/{len(self._task_names)})  epoch {epoch.epoch + 1}/{self._epochs}  "
            f"loss {epoch.loss:.4f}  accuracy {100 * epoch.accuracy:.2f} %{left}"
        )


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
