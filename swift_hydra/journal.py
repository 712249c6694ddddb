"""Progress of long work: a tqdm bar with the losses that matter on a terminal, plain lines
elsewhere.
"""

import sys
import time

from tqdm import tqdm

from swift_hydra.settings import InputError

VERBOSE_STEPS = (
    20  # steps between two lines of --verbose; of a shorter stage, such as the episodes, every step
)


class Progress:
    """Called by the training loops as ``progress(stage, step, n_steps, **losses)``.

    Args:
        quiet: print nothing.
        interval: seconds between two plain lines of one stage.
        verbose: lines in place of the bar, on a terminal too, every ``VERBOSE_STEPS`` steps.

    Raises:
        InputError: for quiet and verbose at once.
    """

    def __init__(self, quiet=False, interval=10.0, verbose=False):
        if quiet and verbose:
            raise InputError("--quiet and --verbose contradict each other: give one of them")
        self.quiet, self.interval, self.verbose = quiet, interval, verbose
        self.terminal = sys.stderr.isatty() and not verbose
        self.stage, self.bar = None, None

    def say(self, text):
        """A line for the reader, on stdout."""
        if not self.quiet:
            self._close()
            print(text, flush=True)

    def __call__(self, stage, step, n_steps, **losses):
        if self.quiet:
            return
        if stage != self.stage:
            self._close()
            self.stage, self.start, self.last = stage, time.monotonic(), time.monotonic()
            if self.terminal:
                self.bar = tqdm(total=n_steps, desc=stage, leave=False, file=sys.stderr)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if step % 10 == 0 or step == n_steps:
                self.bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()})
        now = time.monotonic()
        due = now - self.last > self.interval
        if self.verbose:
            due = step % VERBOSE_STEPS == 0 or n_steps <= VERBOSE_STEPS
        if step == n_steps or (not self.terminal and due):
            parts = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
            left = (now - self.start) / step * (n_steps - step)
            eta = (
                f"  about {left:.0f} s left in this stage"
                if step < n_steps
                else f"  {now - self.start:.1f} s"
            )
            self.last = now
            if step == n_steps:
                self._close()
            print(f"{stage:>18} {step:>4}/{n_steps}  {parts}{eta}", flush=True)

    def _close(self):
        if self.bar is not None:
            self.bar.close()
        self.stage, self.bar = None, None


class Clock:
    """Adds a stage's wall-clock seconds to a dict."""

    def __init__(self, seconds, stage):
        self.seconds, self.stage = seconds, stage

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *error):
        self.seconds[self.stage] = round(time.perf_counter() - self.start, 3)


def silent(stage, step, n_steps, **losses):
    """The progress callback that prints nothing."""


class NoStore:
    """Keeps nothing of a run: every stage is computed. The one that keeps things is
    :class:`resume.Store`.
    """

    def get(self, stage):
        """What :meth:`put` was last given for a stage, or None."""

    def put(self, stage, content, n_done, n_steps):
        """Keep ``content`` (tensors and plain values), all that is needed to go on after ``n_done``
        of ``n_steps``.
        """

    def due(self):
        """Is it time to put something within a long stage?"""
        return False


NO_STORE = NoStore()


def history_log(stage, history, *names):
    """Every 20th step of a training history as dicts for log.jsonl; ``names`` name the leading
    entries of a step.
    """
    return [
        {"stage": stage, "step": i + 1, **dict(zip(names, losses, strict=False))}
        for i, losses in enumerate(history)
        if i % 20 == 19
    ]
