"""Progress, seconds and log of a running fit, and the stages that ``--resume`` needs.

Every training and every loop gets a :class:`Journal`. The default one shows nothing and stores no
stage.
"""

import contextlib
import math
import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from swift_hydra.settings import InputError, printable

# Steps between two lines of --verbose; a stage of fewer steps, such as episodes, shows each.
VERBOSE_STEPS = 20
LOGGED_STEPS = 20  # training steps between two entries of the log
LARGEST = 1e38  # of a number in the log: those of the networks have 32 bits


def are_numbers(entry):
    """Does an entry of the log, a dict, hold only numbers that figures can show?"""
    return all(
        isinstance(name, str)
        and isinstance(value, int | float)
        and not LARGEST < abs(value) < math.inf
        for name, value in entry.items()
    )


class Journal:
    """Progress, seconds and log of a run, and its finished stages.

    Args:
        progress: called as ``progress(stage, step, n_steps, **losses)``, or None.
        store: keeps stages for ``--resume``, see :class:`run.resume.Store`; None keeps nothing.

    Attributes:
        seconds: wall-clock seconds of every timed stage.
        log: one dict per logged training step and per episode, with its ``stage``.
    """

    def __init__(self, progress=None, store=None):
        self.progress = progress
        self.store = store
        self.seconds = {}
        self.log = []

    @contextmanager
    def stage(self, name):
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def step(self, stage, n_done, n_steps, **losses):
        """Show the progress of a stage."""
        if self.progress is not None:
            self.progress(stage, n_done, n_steps, **losses)

    def add_history(self, stage, history):
        """Log every 20th step of a training; ``history`` holds a dict of losses for every step."""
        for i in range(LOGGED_STEPS - 1, len(history), LOGGED_STEPS):
            self.log.append({"stage": stage, "step": i + 1, **history[i]})

    def saved(self, stage):
        """What :meth:`keep` last stored for a stage, in this or an earlier run; or None."""
        return None if self.store is None else self.store.get(stage)

    def taking_up(self):
        """A context in which a saved stage is restored, so that errors name the stage's file."""
        return contextlib.nullcontext() if self.store is None else self.store.content()

    def keep(self, stage, content, n_done, n_steps):
        """Store all that is needed to continue after a step, as tensors and plain values."""
        if self.store is not None:
            self.store.put(stage, content, n_done, n_steps)

    def due(self):
        """Is it time to store something within a long stage?"""
        return self.store is not None and self.store.due()


class Progress:
    """A tqdm bar with the losses that matter on a terminal, plain lines elsewhere.

    Args:
        quiet: print nothing.
        interval: seconds between two plain lines of one stage.
        verbose: print lines, on a terminal too, instead of the bar, every ``VERBOSE_STEPS`` steps.

    Raises:
        InputError: for quiet and verbose at once.
    """

    def __init__(self, quiet=False, interval=10.0, verbose=False):
        if quiet and verbose:
            raise InputError("--quiet and --verbose contradict each other: give one of them")
        self.quiet = quiet
        self.interval = interval
        self.verbose = verbose
        self.terminal = sys.stderr.isatty() and not verbose
        self.stage = None
        self.bar = None

    def say(self, text):
        """Print a line on stdout, unless quiet."""
        if not self.quiet:
            self._close()
            print(printable(text), flush=True)

    def __call__(self, stage, step, n_steps, **losses):
        if self.quiet:
            return
        if stage != self.stage:
            self._open(stage, n_steps)
            self.before = step - 1  # steps of an interrupted run, which took no time in this one
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if step % 10 == 0 or step == n_steps:
                self.bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()})
        if step == n_steps or (not self.terminal and self._due(step, n_steps)):
            self._line(step, n_steps, losses)

    def _open(self, stage, n_steps):
        self._close()
        self.stage = stage
        self.start = time.monotonic()
        self.last = self.start
        if self.terminal:
            self.bar = tqdm(total=n_steps, desc=stage, leave=False, file=sys.stderr)

    def _due(self, step, n_steps):
        if self.verbose:
            return step % VERBOSE_STEPS == 0 or n_steps <= VERBOSE_STEPS
        return time.monotonic() - self.last > self.interval

    def _line(self, step, n_steps, losses):
        self.last = time.monotonic()
        seconds = self.last - self.start
        if step < n_steps:
            left = seconds / (step - self.before) * (n_steps - step)
            time_ = f"about {left:.0f} s left in this stage"
        else:
            time_ = f"{seconds:.1f} s"
        parts = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        stage = self.stage
        if step == n_steps:
            self._close()
        print(f"{stage:>18} {step:>4}/{n_steps}  {parts}  {time_}", flush=True)

    def _close(self):
        if self.bar is not None:
            self.bar.close()
        self.stage = None
        self.bar = None
