"""The sweep computes every cell once, whatever happens to it, and keeps every limit; bad arguments
are refused.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, made_table, refusal, run_script

import swift_hydra.benchmark as benchmark
from swift_hydra.bench import content as cells
from swift_hydra.bench.cell import ORPHANED, Cell, die_with_parent, run_cell
from swift_hydra.bench.methods import GROUPS, check_method, make_method
from swift_hydra.bench.places import RECORDS
from swift_hydra.bench.records import (
    RecordKey,
    as_line,
    key_of,
    load_records,
    merged_path,
    read_records,
    remove_records,
)
from swift_hydra.data.catalogue import DATASET_DIR
from swift_hydra.data.download import EMBEDDED
from swift_hydra.data.splits import make_split
from swift_hydra.distillation import student
from swift_hydra.settings import InputError

pytestmark = pytest.mark.usefixtures("kept_environment")

PACKAGES = {"ray": "ray", "dask": "distributed"}
AGES = 600  # seconds: a limit that is there for what hangs, and far from what a busy machine needs


@pytest.fixture
def folder(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    np.savez(tmp_path / "good.npz", X=X, y=y)
    (tmp_path / "broken.npz").write_text("not an archive")
    return tmp_path


def cell_of(folder, method, time_limit=AGES, memory_limit=4.0):
    return Cell(
        records=str(folder / "records"),
        path=str(folder / "good.npz"),
        method=method,
        protocol="seen",
        seed=0,
        max_rows=0,
        time_limit=time_limit,
        memory_limit=memory_limit,
    )


def sweep(folder, *more):
    # The script has two threads, which would spin for each other on a busy machine.
    env = {"OMP_WAIT_POLICY": "PASSIVE"}
    return run_script("benchmark.py", *words_of(folder), "--jobs", "2", *more, env=env)


def words_of(folder):
    words = ["--datasets", folder, "--records", folder / "records", "--seeds", "0"]
    return [*words, "--methods", "LogisticRegression,script"]


def measured(*words):
    """What the command says, in this process and with what its last sweep has loaded."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        benchmark.main(list(map(str, words)))
    return said.getvalue()


def wait_until(condition, what):
    end = time.monotonic() + AGES
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_a_sweep_resumes_and_records_failures(folder):
    first = sweep(folder)
    assert first.returncode == 0, first.stderr
    assert "2 computed, 2 failed" in first.stdout
    records = load_records(folder / "records")
    assert [(c["dataset"], c["method"], c["failed"] is None) for c in records] == [
        ("broken", "LogisticRegression", False),
        ("good", "LogisticRegression", True),
        ("broken", "script", False),
        ("good", "script", True),
    ]
    assert "broken.npz" in records[0]["failed"]
    assert 50 < records[3]["peak_memory_mib"] < 20_000
    assert not list((folder / "records" / ".cells").glob("*.json"))  # all of it is merged
    remove_records(folder / "records", [RecordKey("LogisticRegression", "seen", "good", 0)])
    second = measured(*words_of(folder))
    assert "4 cells, 3 of them recorded already, 2 as failed (--retry-failed" in second
    assert "1 computed, 0 failed" in second
    again = load_records(folder / "records")
    assert [again[i] for i in (0, 2, 3)] == [records[i] for i in (0, 2, 3)]
    third = measured(*words_of(folder), "--retry-failed")
    assert "4 cells, 2 of them recorded already\n" in third
    assert "0 computed, 2 failed" in third
    assert len(load_records(folder / "records")) == 4


def test_the_bare_command_finds_the_embedded_set_recorded(tmp_path):
    """The records are of the published file, whose table the embedded one holds."""
    shutil.copytree(RECORDS, tmp_path / "records")
    said = measured("--records", tmp_path / "records", "--methods", "kNN", "--seeds", "0")
    assert "1 of them recorded already\n" in said
    assert "of these 1 by other code (commit " in said and "--records MINE" in said
    name = Path(next(iter(EMBEDDED)))
    with np.load(DATASET_DIR / name) as held:
        np.savez(tmp_path / name, X=held["X"] + 1, y=held["y"])  # another table of that name
    words = ["--records", tmp_path / "records", "--methods", "kNN", "--seeds", "0"]
    with pytest.raises(InputError, match=f"another file called {name.stem}"):
        measured("--datasets", tmp_path / name, *words)


def test_a_record_is_of_its_own_table(tmp_path):
    X, y = made_table(n=120, d=3, n_anomalies=20)
    own = ["--seeds", "0", "--methods", "kNN"]
    where = [*own, "--datasets", tmp_path / "m.npz", "--records", tmp_path / "records"]
    np.savez(tmp_path / "m.npz", X=np.where(X == X[0], np.nan, X), y=y)
    with pytest.raises(InputError, match="all cells failed"):
        measured(*where)
    (failure,) = load_records(tmp_path / "records")
    assert "--impute: of SwiftHydra.py" in failure["failed"]
    with pytest.raises(InputError, match="all cells failed"):
        measured(*where)
    np.savez(tmp_path / "m.npz", X=X, y=y)  # mended: the failure was of another table
    assert "1 computed, 0 failed" in measured(*where)
    assert "1 of them recorded already\n" in measured(*where)
    np.savez(tmp_path / "m.npz", X=X[:80], y=y[:80])
    with pytest.raises(InputError, match="another file called m: rename"):
        measured(*where)
    published = load_records(RECORDS)  # those have no sum: they are of the published files
    name = next(r["dataset"] for r in published if r["method"] == "kNN" and r["seed"] == 0)
    np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    shutil.copytree(RECORDS, tmp_path / "copy")
    words = [*own, "--datasets", tmp_path / f"{name}.npz", "--records", tmp_path / "copy"]
    with pytest.raises(InputError, match=f"another file called {name}"):
        measured(*words, "--max-rows", "10000")


def test_lists_may_have_spaces(tmp_path):
    X, y = made_table(n=60, d=3, n_anomalies=10)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    config = benchmark.BenchmarkConfig(
        datasets=f"{tmp_path}/a.npz, {tmp_path}/b.npz",
        seeds="0, 1",
        methods="kNN, LOF",
        protocols="seen, few",
        records=tmp_path / "records",
    )
    assert len(benchmark.list_cells(config)) == 16


def test_one_table_under_two_names_is_said_and_hidden_files_are_no_sets(tmp_path):
    X, y = made_table(n=60, d=3, n_anomalies=10)
    np.savez(tmp_path / "a.npz", X=X, y=y)
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    (tmp_path / "._a.npz").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves it
    words = ["--datasets", tmp_path, "--records", tmp_path / "records", "--seeds", "0"]
    with pytest.warns(UserWarning, match=r"^a\.npz, b\.npz: one file under 2 names"):
        assert "2 computed, 0 failed" in measured(*words, "--methods", "kNN")


def finished(folder):
    """{key: record}, after a look at every merged file: sorted, whole, and nothing twice."""
    for path in (folder / "records").glob("*.jsonl"):
        records = read_records(path)
        assert path.read_text() == "".join(as_line(records[key]) for key in sorted(records))
    return {key_of(record): record for record in load_records(folder / "records")}


def wait_for_records(folder, process, number):
    wait_until(
        lambda: process.poll() is not None or len(finished(folder)) >= number,
        "nothing is recorded",
    )


def test_an_end_at_three_random_moments_damages_nothing(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
    command = [sys.executable, "-u", ROOT / "benchmark.py", "--jobs", "2"]
    command += ["--datasets", tmp_path, "--records", tmp_path / "records"]
    command += ["--seeds", ",".join(map(str, range(5)))]
    command += ["--methods", "kNN,ExtraTrees"]
    rng = random.Random(0)
    before = {}
    for kill in range(3):
        with open(tmp_path / "said", "w") as said:
            process = subprocess.Popen(
                command,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a terminal's
            )
        # Any moment will do: while it starts, or soon after its first or second record.
        more = kill % 3
        wait_for_records(tmp_path, process, len(before) + more)
        time.sleep(rng.uniform(0.0, 0.3 if more else 3.0))
        sent = signal.SIGINT if kill == 1 else signal.SIGKILL  # Ctrl-C reaches the workers too
        if sent == signal.SIGINT:  # records may come from workers of the kill before
            wait_until(lambda: "recorded already" in (tmp_path / "said").read_text(), "no start")
            time.sleep(1.0)  # while it starts its workers, for milliseconds, Ctrl-C is not heard
        # Every second time the sweep alone dies, and its workers have to notice.
        os.killpg(process.pid, sent) if kill % 2 else process.kill()
        process.wait()
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert "Traceback" not in (tmp_path / "said").read_text()
        now = finished(tmp_path)
        assert all(now[key] == record for key, record in before.items())  # not computed again
        assert [record["failed"] for record in now.values()] == [None] * len(now)
        before = now
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    now = finished(tmp_path)
    assert len(now) == 2 * 5 * 2
    assert all(now[key] == record for key, record in before.items())
    assert [record["failed"] for record in now.values()] == [None] * len(now)
    assert all(np.isfinite(record["auc_roc"]) for record in now.values())


def _worker_of(parent):
    die_with_parent(parent)
    time.sleep(60)


def test_a_worker_whose_sweep_was_gone_before_it_looked_leaves():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    worker = multiprocessing.get_context("fork").Process(target=_worker_of, args=(gone.pid,))
    worker.start()
    worker.join(30)
    assert worker.exitcode == ORPHANED


class Watched(Cell):
    """A cell that shows which of its locks were asked for."""

    def asked(self, holder):
        return Path(self.path).with_suffix(f".{holder}")

    def lock(self, holder):
        self.asked(holder).touch()
        return super().lock(holder)


def _hold(cell, held, go_on):
    with cell.lock("child"):
        held.set()
        go_on.wait()
        cell.write({"failed": "a reason", "by": "the first"})


def test_the_child_of_a_killed_worker_is_not_written_over(folder):
    cell = Watched(**dataclasses.asdict(cell_of(folder, "kNN")))
    context = multiprocessing.get_context("fork")
    held = context.Event()
    go_on = context.Event()
    left = context.Process(target=_hold, args=(cell_of(folder, "kNN"), held, go_on))
    left.start()
    assert held.wait(AGES)
    late = threading.Thread(target=run_cell, args=(cell,), kwargs={"start": "fork"})
    late.start()
    wait_until(cell.asked("child").exists, "the next sweep starts no child")
    assert cell.find() is None  # the next sweep's child waits
    go_on.set()
    left.join()
    late.join()
    assert cell.find()["by"] == "the first"


class Slow:
    """A method that never ends, asks for too much, dies, or scores NaN."""

    def __init__(self, what, seed):
        self.what = what

    def fit(self, X, y):
        if self.what == "slow":
            time.sleep(AGES)
        elif self.what == "large":
            self.block = np.ones((3 * 2**30,), dtype=np.uint8)
        elif self.what == "large tensor":
            self.block = torch.ones(3 * 2**30, dtype=torch.uint8)
        elif self.what == "dead":
            os.kill(os.getpid(), signal.SIGKILL)

    def decision_function(self, X):
        return np.full(len(X), np.nan)


@pytest.mark.parametrize(
    ("what", "time_limit", "reason"),
    [
        ("slow", 2, "TimeLimit: not finished after 2 s"),
        ("large", AGES, "MemoryLimit: more than 1.5 GiB were asked for"),
        ("large tensor", AGES, "MemoryLimit: more than 1.5 GiB were asked for"),
        ("dead", AGES, "Crash: the process ended with code -9"),
        ("nan", AGES, "FloatingPointError: 60 of 60 scores are not finite"),
    ],
)
def test_limits_and_crashes_become_records(folder, what, time_limit, reason):
    # A forked child knows the class above; the sweep's own clean process would not.
    cell = cell_of(folder, what, time_limit, memory_limit=1.5)
    record = run_cell(cell, start="fork", make=Slow)
    assert record["failed"] == reason
    assert load_records(folder / "records") == [record]


class Orphan(Slow):
    """Its process leaves, the first time, as one does whose parent was killed."""

    def fit(self, X, y):
        try:
            os.mkdir(self.what)
        except FileExistsError:
            return
        os._exit(75)

    def decision_function(self, X):
        return X[:, 0]


def test_a_child_that_was_killed_with_its_parent_is_no_crash(folder):
    cell = cell_of(folder, str(folder / "left"))
    assert run_cell(cell, start="fork", make=Orphan)["failed"] is None


class Parent(Slow):
    """Starts another program, as the main script's cells do, and waits for its end."""

    def fit(self, X, y):
        program = subprocess.Popen(["sleep", str(AGES)])
        Path(self.what).write_text(str(program.pid))
        program.wait()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
def test_what_a_cell_started_ends_with_it(folder):
    cell = cell_of(folder, str(folder / "pid"), time_limit=3)
    assert run_cell(cell, start="fork", make=Parent)["failed"].startswith("TimeLimit")
    state = Path("/proc", (folder / "pid").read_text(), "stat")
    # Gone, or a zombie until whoever took it over asks for its end.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


class Late(Slow):
    """Writes its record, and does not end."""

    def decision_function(self, X):
        threading.Thread(target=time.sleep, args=(AGES,)).start()  # keeps the process alive
        Path(self.what).touch()
        return X[:, 0]


def test_a_record_that_is_there_is_not_replaced_when_the_time_is_up(folder):
    # On a machine so busy that the time is up before the fit, the record says so: no verdict then.
    scored = folder / "late"
    record = run_cell(cell_of(folder, str(scored), time_limit=4), start="fork", make=Late)
    assert record["failed"] == (None if scored.exists() else "TimeLimit: not finished after 4 s")


def test_a_sweep_refuses_records_of_other_rows(folder):
    names = ("--datasets", str(folder), "--methods", "kNN", "--seeds", "0")
    names += ("--records", str(folder / "records"))
    benchmark.main([*names, "--max-rows", "100"])
    with pytest.raises(InputError, match="with --max-rows 100, not 10000: give the same, or anot"):
        benchmark.main(names)


def test_groups_and_methods_are_known():
    for methods in GROUPS.values():
        for method in methods:
            check_method(method)
    config = benchmark.BenchmarkConfig(datasets="47_yeast", methods="ours,peers,ladder,ablations")
    listed = benchmark.list_cells(config)
    assert len(listed) == len(set(listed)) == 2 * len({cell.method for cell in listed})


def test_protocols_are_known_by_what_is_labelled():
    names = "seen,few,unseen,one-class,weak-0.05,weak-10,weak-0"
    config = benchmark.BenchmarkConfig(datasets="47_yeast", seeds="0", methods="kNN")
    config.protocols = names + ",weak-.050"  # the same again
    config.datasets += f",{config.datasets}"
    listed = benchmark.list_cells(config)
    assert [cell.protocol for cell in listed] == names.split(",")
    for name in ("weak", "weak-5%", "weak-1.5", "often"):
        config.protocols = name
        with pytest.raises(InputError, match=r"'seen', 'few', 'unseen', 'one-class'.*'weak-10'"):
            benchmark.list_cells(config)


class Silent(Slow):
    """Scores by the first column, and says with which labels it was fitted."""

    def fit(self, X, y):
        self.n_experts_, self.episode_log_ = int(y.sum()), []
        self.synthetic_ = y[y < 0]

    def decision_function(self, X):
        return X[:, 0]


@pytest.mark.parametrize(
    ("protocol", "known", "hidden"),
    [("weak-0.05", 1, 13), ("weak-10", 10, 4), ("weak-0", 0, 14), ("one-class", 0, 0)],
)
def test_records_of_hidden_anomalies(folder, protocol, known, hidden):
    cell = dataclasses.replace(cell_of(folder, "silent"), protocol=protocol)
    record = run_cell(cell, start="fork", make=Silent)
    assert record["failed"] is None and record["protocol"] == protocol
    assert (record["n_train_anomalies"], record["n_hidden"]) == (known, hidden)
    assert (record["n_experts"], record["n_synthetic"]) == (known, 0)
    assert record["n_train"] == (40 if protocol == "one-class" else 70)
    assert load_records(folder / "records") == [record]


def quick(method, seed):
    model = make_method(method, seed)
    return model.set_params(cvae_steps=8, detector_steps=8, mixture_steps=12, n_episodes=1)


def test_a_cell_of_our_own(folder, monkeypatch):
    monkeypatch.setattr(student, "STEPS", 200)
    record = run_cell(cell_of(folder, "full/rl/fast"), start="fork", make=quick)
    assert record["failed"] is None
    assert record["n_synthetic"] > 0 and 0 <= record["nearer_to_generated"] <= 1
    assert record["auc_roc"] > 0.5 and -1 <= record["rank_correlation"] <= 1
    assert record["verified_share"] in (0.03, 1.0)  # the detector scores the top again, or all


def test_what_was_published_hides_nothing(folder):
    record = run_cell(cell_of(folder, "silent"), start="fork", make=Silent)
    assert record["n_train_anomalies"] == 8 and "n_hidden" not in record


def test_copies_of_training_rows_are_counted_and_left_out(tmp_path):
    X, y = made_table(n=100, d=4, n_anomalies=20)
    X[:, 0] = np.where(y == 1, 1.0, X[:, 0] - 10.0)  # ranks all anomalies first
    X[50:] = X[:50]
    y[50:] = y[:50]
    np.savez(tmp_path / "good.npz", X=X, y=y)
    record = run_cell(cell_of(tmp_path, "silent"), start="fork", make=Silent)
    split = make_split(None, y, "seen", 0)
    copies = np.isin(split.test % 50, split.train % 50)
    assert record["n_test_copies"] == copies.sum() > 5
    assert record["auc_roc"] == record["auc_roc_fresh"] == record["auc_pr_fresh"] == 1.0
    X[y == 1] = 7.0  # every anomaly of the test is a copy
    np.savez(tmp_path / "other.npz", X=X, y=y)
    cell = dataclasses.replace(cell_of(tmp_path, "silent"), path=str(tmp_path / "other.npz"))
    record = run_cell(cell, start="fork", make=Silent)
    assert record["auc_roc"] == 1.0 and record["auc_roc_fresh"] is None


def test_the_script_is_told_what_is_labelled(folder, monkeypatch):
    """The script itself, with shorter training."""
    lines = ["import runpy, sys", f"sys.argv[1:] += {SHORT!r}", f"sys.path[0] = {str(ROOT)!r}"]
    lines += [f"runpy.run_path({str(cells.SCRIPT)!r}, run_name='__main__')"]
    (folder / "short.py").write_text("\n".join(lines))
    monkeypatch.setattr(cells, "SCRIPT", folder / "short.py")
    cell = dataclasses.replace(cell_of(folder, "script"), protocol="weak-10")
    record = run_cell(cell, start="fork")
    assert record["failed"] is None and record["protocol"] == "weak-10"
    assert load_records(folder / "records") == [record]
    assert (record["n_train_anomalies"], record["n_hidden"]) == (10, 4)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("methods", "magic"),
        ("methods", "full"),
        ("methods", "full/rl/magic"),
        ("methods", "full/rl/one-expert/x"),
        ("protocols", "often"),
        ("protocols", "weak"),
        ("seeds", "a"),
        ("seeds", "0,-1"),
        ("seeds", str(2**32)),
        ("max_rows", -1),
        ("max_rows", 3),
        ("datasets", "47_yeats"),
        ("jobs", 0),
        ("time_limit", 0.0),
    ],
)
def test_bad_arguments_are_refused(setting, value):
    config = benchmark.BenchmarkConfig(datasets="47_yeast")
    with pytest.raises(InputError):
        benchmark.list_cells(dataclasses.replace(config, **{setting: value}))


@pytest.mark.parametrize("backend", list(PACKAGES))
def test_other_backends(folder, backend):
    pytest.importorskip(PACKAGES[backend], reason=f"{backend} is not installed")
    (folder / "broken.npz").unlink()
    words = ["--datasets", folder, "--records", folder / "records", "--seeds", "0,1"]
    words += ["--methods", "kNN,LogisticRegression", "--jobs", "2", "--backend", backend]
    done = run_script("benchmark.py", *words)
    assert done.returncode == 0, done.stderr
    assert "4 computed, 0 failed" in done.stdout
    assert len(read_records(merged_path(folder / "records", "seen"))) == 2


def test_a_missing_backend_is_named(tmp_path, capsys):
    missing = [backend for backend, module in PACKAGES.items() if find_spec(module) is None]
    if not missing:
        pytest.skip("both are installed")
    for backend in missing:
        words = ["--backend", backend, "--methods", "kNN", "--records", str(tmp_path)]
        assert "pip install" in refusal(capsys, partial(benchmark.main, words))


def test_records_that_cannot_be_written_are_named(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    words = ["--methods", "kNN", "--records", str(tmp_path / "file" / "records")]
    assert "choose another --records" in refusal(capsys, lambda: benchmark.main(words))


def test_dirty_tables_take_no_place_of_others(tmp_path):
    words = ["--datasets", "47_yeast", "--dirty", str(tmp_path)]
    benchmark.main(words)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    benchmark.main(words)  # its own, again
    mine = tmp_path / "47_yeast-repeated.npz"
    for content in (b"precious", made["47_yeast-clean.npz"]):
        mine.write_bytes(content)
        with pytest.raises(InputError, match="is there already and holds something"):
            benchmark.main(words)
        assert mine.read_bytes() == content
    mine.write_bytes(made[mine.name])
    assert made == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_set_is_a_file_and_its_name_is_its_own(folder):
    """A pipe would be waited for; records know a set by its file's name alone."""
    config = benchmark.BenchmarkConfig(datasets=str(folder))
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)):
        path = folder / "odd.npz"
        make(path)
        with pytest.raises(InputError, match=r"odd\.npz: is no regular file: take it out"):
            benchmark.list_cells(config)
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "other").mkdir()
    shutil.copy(folder / "good.npz", folder / "other" / "good.npz")
    twice = dataclasses.replace(config, seeds="0,1,0,01", methods="kNN")
    assert [cell.seed for cell in benchmark.list_cells(twice) if cell.dataset == "good"] == [0, 1]
    two = f"{folder / 'good.npz'},{folder / 'other' / 'good.npz'}"
    with pytest.raises(InputError, match="records of one name"):
        benchmark.list_cells(dataclasses.replace(config, datasets=two))
    with pytest.raises(InputError, match="none is called 47_yeast"):
        benchmark.main(["--datasets", str(folder / "good.npz"), "--dirty", str(folder / "dirty")])
