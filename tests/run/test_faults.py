"""Faults: SIGKILL at random moments, full disks, lost permissions, damaged files, two runs in one
folder.

Runs are children forked from a clean process with the imports done, so that a run takes a second
and not five; what the user types is tested once as well. The children write far more often than a
run does: a kill then often meets a write.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, made_table, run_script, trained_cvae, trained_mixture

from swift_hydra.files import file_lock, load_checkpoint, part, write_file, write_torch
from swift_hydra.journal import Journal
from swift_hydra.run.folder import OPTIONAL, RANKING, RunFolder
from swift_hydra.run.resume import Store
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra, main

POSIX = pytest.mark.skipif(
    os.name != "posix", reason="forks, signals, limits and permissions of POSIX"
)
NAMES = {"report.json", "log.jsonl", "scores.npz", "checkpoint.pt", "pretrained.pt", "DONE"}
STEPS = [*SHORT, "--n-synthetic", "100"]
PLOT = ["--plot"] if find_spec("matplotlib") else []


class Runs:
    """Short runs on a made table below a folder that all may read, by ``fork_server.py``."""

    def __init__(self, where):
        self.where = Path(where)
        X, y = made_table(n=300, n_anomalies=30)
        np.savez(self.where / "made.npz", X=X, y=y)
        self.server = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "run" / "fork_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        )
        assert self.server.stdout.readline()
        start = time.monotonic()
        finish(self.start("out"))
        self.seconds = time.monotonic() - start
        self.scores = scores(self.folder("out"))

    def folder(self, out):
        return self.where / out / "made" / "seen" / "seed0"

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def start(self, out, *more, script="SwiftHydra", **limits):
        steps = STEPS[:4] if script == "pretrain" else STEPS
        arguments = [
            str(self.where / "made.npz"),
            "--out",
            str(self.where / out),
            *steps,
            *map(str, more),
        ]
        return Run(self, arguments, script, limits)


class Run:
    def __init__(self, runs, arguments, script, limits):
        self.runs, self.streams = runs, [tempfile.NamedTemporaryFile() for _ in "oe"]
        self.pid = runs.ask(
            script=script,
            arguments=arguments,
            streams=[s.name for s in self.streams],
            limits=limits,
        )

    def stopped(self):
        """Wait until it has stopped itself."""
        command = ["ps", "-o", "state=", "-p", str(self.pid)]
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if subprocess.run(command, capture_output=True, text=True).stdout.startswith("T"):
                return
            time.sleep(0.01)
        raise AssertionError("the run never stopped")

    def wait(self):
        self.exitcode = self.runs.ask(wait=self.pid)
        self.out, self.err = (stream.read().decode() for stream in self.streams)
        return self


@pytest.fixture(scope="module")
def base():
    with tempfile.TemporaryDirectory() as where:
        os.chmod(where, 0o755)
        runs = Runs(where)
        yield runs
        runs.server.kill()
        runs.server.wait()


def scores(path):
    with np.load(path / "scores.npz", allow_pickle=False) as arrays:
        return arrays["score"]


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def finish(run):
    run.wait()
    assert run.exitcode == 0, run.err
    return run


def refused(run, *needles):
    run.wait()
    assert run.exitcode == 2, (run.exitcode, run.out, run.err)
    assert len(run.err.strip().splitlines()) == 1, run.err
    for needle in needles:
        assert needle in run.err


# --- SIGKILL --------------------------------------------------------------------------------------


@POSIX
def test_ten_sigkills_resume_to_bit_equal_scores(base):
    rng = random.Random(0)
    resumed = 0
    for kill in range(10):
        out, path = f"kill{kill}", base.folder(f"kill{kill}")
        # Every fourth time pretrain.py is what is killed, and SwiftHydra.py goes on from there.
        script = "pretrain" if kill % 4 == 3 else "SwiftHydra"
        if kill % 2:  # at some moment
            first = base.start(out, script=script)
            time.sleep(rng.uniform(0.05, 0.8) * base.seconds * (0.2 if script == "pretrain" else 1))
            os.kill(first.pid, signal.SIGKILL)
        else:  # by itself, when some file has come into place
            first = base.start(out, script=script, signal=["", signal.SIGKILL, 1 + kill // 2])
        first.wait()
        last = finish(base.start(out, "--resume"))
        assert np.array_equal(scores(path), base.scores), f"kill {kill}"
        assert {file.name for file in path.iterdir() if file.is_file()} == NAMES
        after = [
            line.split()[-2:] for line in last.out.splitlines() if line.startswith("resuming after")
        ]
        finished = [stage for stage, steps in after if len(set(steps.split("/"))) == 1]
        for line in last.out.splitlines():
            assert line.split()[0] not in finished, line  # a finished stage is not trained again
        resumed += bool(after) or "using" in last.out or "nothing is left to do" in last.out
    assert resumed >= 5  # those that saw a file come into place


@POSIX
def test_a_killed_command_goes_on(base, tmp_path):
    """As a user types it, with the pauses between two writes that a run has."""
    command = [ROOT / "SwiftHydra.py", base.where / "made.npz", "--out", tmp_path, *STEPS]
    first = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    path = tmp_path / "made" / "seen" / "seed0"
    end = time.monotonic() + 120
    while not (path / "pretrained.pt").exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    last = run_script(*command, "--resume")
    assert last.returncode == 0, last.stderr
    assert f"using {path / 'pretrained.pt'}" in last.stdout
    assert np.array_equal(scores(path), base.scores)
    assert {file.name for file in path.iterdir() if file.is_file()} == NAMES


@POSIX
def test_ctrl_c_names_the_way_on(base):
    first = base.start("ctrl-c", signal=["/resume.pt", signal.SIGINT])
    first.wait()
    assert first.exitcode == 130
    assert first.err == "interrupted: the same command with --resume goes on from what is on disk\n"
    assert "resuming after" in finish(base.start("ctrl-c", "--resume")).out
    assert np.array_equal(scores(base.folder("ctrl-c")), base.scores)


@POSIX
def test_killed_after_its_last_file_a_run_leaves_nothing_behind(base):
    path = base.folder("last")
    base.start("last", signal=["/DONE", signal.SIGKILL]).wait()
    assert (path / "resume.pt").exists()
    assert "nothing is left to do" in finish(base.start("last", "--resume")).out
    assert {file.name for file in path.iterdir() if file.is_file()} == NAMES
    # What a run with other settings has kept there stays.
    base.start("last", "--seed", "0", "--k", "3", signal=["/resume.pt", signal.SIGKILL]).wait()
    kept = (path / "resume.pt").read_bytes()
    base.start("last", "--resume").wait()
    assert (path / "resume.pt").read_bytes() == kept


class Interrupting:
    """Ends the run at the first thing it is given that it has not met before.

    Every tenth step of a training is such a thing too.
    """

    def __init__(self):
        self.entries, self.met, self.asked = {}, [], 0

    def get(self, stage):
        return self.entries.get(stage)

    def content(self):
        return contextlib.nullcontext()

    def due(self):
        self.asked += 1
        return self.asked % 10 == 0

    def put(self, stage, content, n_done, n_steps):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        self.entries[stage] = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        if (stage, n_done) not in self.met:
            self.met.append((stage, n_done))
            raise KeyboardInterrupt


def interrupted(work):
    """The result of ``work(journal)``, interrupted again and again; and what was met on the way."""
    store = Interrupting()
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return work(Journal(store=store)), store.met


@pytest.mark.parametrize(
    "preset, generator", [("full", "rl"), ("paper", "search"), ("paper", "gradient")]
)
def test_cut_off_after_every_stage_the_fit_is_the_same(preset, generator, table):
    def fit(journal):
        model = SwiftHydra(
            preset=preset,
            generator=generator,
            cvae_steps=12,
            detector_steps=12,
            mixture_steps=24,
            n_episodes=3,
            n_synthetic=50,
        )
        return model.fit(*table, journal=journal), journal.log

    (model, log), met = interrupted(fit)
    whole, whole_log = fit(Journal())
    assert np.array_equal(model.synthetic_, whole.synthetic_)
    assert np.array_equal(model.decision_scores_, whole.decision_scores_)
    assert np.array_equal(model.decision_function(table[0]), whole.decision_function(table[0]))
    assert model.episode_log_ == whole.episode_log_
    assert log == whole_log
    assert {entry["stage"] for entry in log} >= {"episodes", "mixture"}
    more = {"cvae-half0", "cvae-half1", "one-class"} if preset == "full" else set()
    assert {stage for stage, _ in met} == {"cvae", "detector", "episodes", "mixture"} | more


def test_cut_off_within_a_training_the_network_is_the_same(table):
    X, y = torch.from_numpy(table[0]), torch.from_numpy(table[1])
    folds = np.arange(len(y)) % 4

    def train(journal):
        cvae = trained_cvae(X, y, steps=35, journal=journal)
        mixture = trained_mixture(
            X, y, steps=35, folds=folds, synthetic=X[:20] + 1, journal=journal
        )
        return (cvae, mixture), journal.log

    (networks, log), met = interrupted(train)
    assert len(met) >= 8
    wholes, whole_log = train(Journal())
    assert log == whole_log
    for network, whole in zip(networks, wholes, strict=True):
        for name, value in whole.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), name


# --- full disk, permissions -----------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    "between", [0.0, 1e9]
)  # what finds no room is resume.pt, or checkpoint.pt at the end
def test_a_full_disk_leaves_the_run_before_whole(base, between):
    out, path = f"full{between}", base.folder(f"full{between}")
    shutil.copytree(base.folder("out"), path)
    before = contents(path)
    limit = len(before["checkpoint.pt"]) - 1 if between else 3000
    stopped = base.start(out, "--mixture-steps", 31, between=between, max_bytes=limit)
    refused(
        stopped,
        "File too large",
        "free space",
        *(["checkpoint.pt"] if between else ["resume.pt", "--resume"]),
    )
    assert contents(path) == before
    finish(base.start(out, "--mixture-steps", 31, "--resume"))
    assert not np.array_equal(scores(path), base.scores)


@POSIX
def test_a_small_disk_runs_full(base, tmp_path):
    """The real thing, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mount.stderr.strip()}")
    try:
        path = disk / "made" / "seen" / "seed0"
        shutil.copytree(base.folder("out"), path)
        before = contents(path)
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        refused(base.start(disk, "--mixture-steps", 31), "No space left on device", "free space")
        assert contents(path) == before
        (disk / "filler").unlink()
        finish(base.start(disk, "--mixture-steps", 31, "--resume"))
        assert set(contents(path)) == NAMES
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_under_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, ROOT / "dataloader.py", "47_yeast"]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 2
    assert (
        process.stderr
        == "error: output: No space left on device: free space or check the permissions\n"
    )


@POSIX
def test_the_permission_to_write_is_taken_away(base):
    (base.where / "barred").mkdir()
    (base.where / "barred").chmod(0o777)
    path = base.folder("barred")
    first = base.start("barred", nobody=True, signal=["/resume.pt", signal.SIGSTOP])
    first.stopped()
    path.chmod(0o555)
    os.kill(first.pid, signal.SIGCONT)
    refused(first, "Permission denied", "make its folder writable", str(path))
    left = contents(path)
    assert set(left) - {".lock"} == {"pretrained.pt", "resume.pt"}
    refused(base.start("barred", "--resume", nobody=True), "Permission denied", "--out")
    assert contents(path) == left
    path.chmod(0o755)
    assert "resuming after" in finish(base.start("barred", "--resume", nobody=True)).out
    assert np.array_equal(scores(path), base.scores)


@POSIX
def test_files_have_the_rights_that_the_umask_leaves_now(tmp_path):
    """Also of a process that sets it late, and while a file is written."""
    seen = []

    def write(file):
        seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    def mode(name):
        write_file(tmp_path / name, write)
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    before = os.umask(0o077)
    try:
        assert mode("mine") == seen[-1] == 0o600
        os.umask(0o022)
        assert mode("ours") == seen[-1] == 0o644
        assert mode("mine") == seen[-1] == 0o600  # what was there before says who may read it
        (tmp_path / "mine").chmod(0o666)
        assert (mode("mine"), seen[-1]) == (0o666, 0o644)
        with file_lock(tmp_path / "lock") as lock:
            assert stat.S_IMODE(os.fstat(lock.fileno()).st_mode) == 0o644
    finally:
        os.umask(before)


@POSIX
def test_only_what_a_killed_run_left_goes(tmp_path):
    names = [f".s.csv.{middle}.part" for middle in ("backup", "2024", "Backup_1", "a.bcdef0", "")]
    with part(tmp_path / "s.csv", lambda file: file.write(b"half")) as left:
        shutil.copy(left, f"{left}.kept")
    os.rename(f"{left}.kept", left)
    for name in names:
        (tmp_path / name).write_text("mine")
    write_file(tmp_path / "s.csv", lambda file: file.write(b"new"))
    assert {path.name for path in tmp_path.iterdir()} == {"s.csv", *names}


# --- damaged files, other runs --------------------------------------------------------------------


@POSIX
def test_every_damage_to_a_checkpoint_is_noticed(base, tmp_path):
    good, rng = (base.folder("out") / "checkpoint.pt").read_bytes(), random.Random(1)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(good)
    model = SwiftHydra.load(path)
    assert (
        torch.load(path, weights_only=True)["kind"] == "SwiftHydra"
    )  # an ordinary file of torch for other programs
    X, _ = made_table(n=300, n_anomalies=30)
    assert np.isfinite(model.decision_function(X)).all()
    damaged = [good[: rng.randrange(len(good))] for _ in range(5)] + [b"", good + b"\0"]
    for place in [*(rng.randrange(len(good)) for _ in range(20)), 0, len(good) - 1, len(good) - 70]:
        flipped = bytearray(good)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable checkpoint"):
            SwiftHydra.load(path)


@POSIX
def test_a_resume_file_that_does_not_fit_is_refused(base):
    path = base.folder("cut")
    base.start("cut", signal=["/resume.pt", signal.SIGKILL]).wait()
    good = {name: (path / name).read_bytes() for name in ("resume.pt", "pretrained.pt")}
    refused(
        base.start("cut", "--resume", "--mixture-steps", 31),
        "mixture_steps=30 (now 31)",
        "without --resume",
    )
    with pytest.raises(InputError, match=r"other rows.*without --resume"):
        Store(path / "resume.pt", "other", {}, True, print)
    rng = random.Random(2)
    for name, content in good.items():
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 16
        for damaged in (bytes(flipped), content[: len(content) // 3]):
            (path / name).write_bytes(damaged)
            remedy = "without --resume" if name == "resume.pt" else "run the command that wrote it"
            again = base.start("cut", "--resume")
            refused(again, name, "not a readable checkpoint", remedy)
            assert (path / name).read_bytes() == damaged
        (path / name).write_bytes(content)
    finish(base.start("cut", "--resume"))
    assert np.array_equal(scores(path), base.scores)


@POSIX
def test_a_resume_file_of_another_content_is_refused(base):
    """The sum is right and the content is not: one line, whatever it holds."""
    path = base.folder("content")
    base.start("content", signal=["/resume.pt", signal.SIGKILL]).wait()
    saved = load_checkpoint(path / "resume.pt", "resume")
    entry = saved["entries"]["episodes"]
    rows = entry["accepted"]
    changes = [
        {"entries": {}},
        {"entries": "x"},
        {"settings": [1]},
        {"last": None},
        {"entries": {"episodes": {}}},
        {"entries": {"episodes": entry | {"accepted": torch.full_like(rows, torch.nan)}}},
        {"entries": {"episodes": entry | {"accepted": rows[:, :1]}}},
        {"entries": {"episodes": entry | {"accepted": rows[:-1]}}},
        {"entries": {"episodes": entry | {"log": 3}}},
        {"entries": {"episodes": entry | {"agent": {"policy": {}}}}},
    ]
    for change in changes:
        write_torch(path / "resume.pt", saved | change)
        refused(base.start("content", "--resume"), "resume.pt", "does not fit", "without --resume")
    write_torch(path / "resume.pt", saved)
    finish(base.start("content", "--resume"))
    assert np.array_equal(scores(path), base.scores)
    for wrong in ("[" * 200_000, "{}", '{"n_test": 3, "config": []}'):
        (path / "report.json").write_text(wrong)
        refused(base.start("content", "--resume"), "report.json", "run without --resume")


@POSIX
def test_without_resume_a_run_starts_anew(base):
    path = base.folder("anew")
    base.start("anew", signal=["/resume.pt", signal.SIGKILL]).wait()
    (path / "resume.pt").write_bytes(b"damaged")
    anew = finish(base.start("anew"))
    assert "--resume would go on from it" in anew.out
    assert "resuming" not in anew.out
    assert np.array_equal(scores(path), base.scores)
    assert set(contents(path)) == NAMES


@POSIX
def test_a_finished_run_is_not_run_again(base):
    path = base.folder("again")
    shutil.copytree(base.folder("out"), path)
    before = contents(path)
    first = finish(base.start("again", "--resume"))
    assert first.out.splitlines()[-1].startswith("AUC-ROC 0.")
    assert "mixture" not in first.out
    assert contents(path) == before
    assert "using" in finish(base.start("again", "--resume", script="pretrain")).out
    assert contents(path) == before
    (path / "checkpoint.pt").unlink()  # what is missing is made again, and nothing else goes
    (path / "my_notes.png").write_text("mine")
    finish(base.start("again", "--resume"))
    assert (path / "checkpoint.pt").exists() and (path / "my_notes.png").read_text() == "mine"
    (path / "my_notes.png").unlink()
    (path / "scores.npz").write_bytes(before["scores.npz"][:-200])
    refused(base.start("again", "--resume"), "scores.npz", "run without --resume")
    finish(
        base.start("again", "--resume", "--mixture-steps", 31)
    )  # nothing of it is there: it simply runs
    assert not np.array_equal(scores(path), base.scores)


def resume(base, out, *more):
    """The command in this process."""
    table = str(base.where / "made.npz")
    main([table, "--out", str(base.where / out), *STEPS, "--resume", "--quiet", *more])


@POSIX
def test_scores_that_are_not_those_of_the_report_are_refused(base, capsys):
    path = base.folder("arrays")
    shutil.copytree(base.folder("out"), path)
    with np.load(path / "scores.npz") as arrays:
        good = dict(arrays)
    y, score = good["y_test"], good["score"]
    changes = [
        {"y_test": y[::-1]},
        {"y_test": 1 - y},
        {"score": score[::-1]},
        {"score": score.astype(complex)},
        {"score": score.astype("U")},
        {"score": (score > 0)},
        {"y_test": y.astype(float)},
        *({"y_test": np.full(len(y), value)} for value in (0, 1, "a", np.nan)),
        {"y_test": y + (np.arange(len(y)) == y.argmax())},  # of three kinds
    ]
    for change in changes:
        np.savez(path / "scores.npz", **(good | change))
        with pytest.raises(InputError, match=r"scores\.npz: is missing or damaged.*--resume"):
            resume(base, "arrays")
    assert capsys.readouterr().out == ""
    np.savez(path / "scores.npz", **good)
    resume(base, "arrays")
    assert capsys.readouterr().out.startswith("AUC-ROC")


@POSIX
def test_edited_records_are_refused(base, capsys):
    path = base.folder("records")
    shutil.copytree(base.folder("out"), path)
    good = (path / "report.json").read_text()
    report = json.loads(good)
    changed = [{name: value for name, value in report.items() if name != "seconds"}]
    changed += [report | {"seconds": "long"}, report | {"seconds": {"mixture": "long"}}]
    changed += [report | {"auc_roc": str(report["auc_roc"])}, report | {"n_train": "9"}]
    changed += [report | {"versions": []}, report | {"auc_pr": None}]
    for wrong in changed:
        (path / "report.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"report\.json: is missing or damaged.*--resume"):
            resume(base, "records", *PLOT)
    (path / "report.json").write_text(good)
    log = (path / "log.jsonl").read_text()
    entry = json.loads(log.splitlines()[-1])
    entries = [{}, {"stage": entry["stage"]}, entry | {"step": None}, entry | {"stage": [1]}]
    entries += [entry | {"balance_loss": "x"}, entry | {"balance_loss": 10**400}]
    for line in ("[1]", "", "nothing", *map(json.dumps, entries)):
        (path / "log.jsonl").write_text(f"{log}{line}\n")
        with pytest.raises(InputError, match=r"log\.jsonl: is missing or damaged.*--resume"):
            resume(base, "records", *PLOT)
    assert capsys.readouterr().out == ""
    # Whatever passes is drawn.
    (path / "log.jsonl").write_text('{"stage": "episodes", "episode": 0}\n' * 2)
    resume(base, "records", *PLOT)
    assert (path / "report.html").exists() == bool(PLOT)


@POSIX
def test_another_checkpoint_beside_a_finished_run_is_refused(base, capsys):
    path = base.folder("foreign")
    shutil.copytree(base.folder("out"), path)
    before = contents(path)
    good = load_checkpoint(path / "checkpoint.pt", "SwiftHydra")
    names = good["columns"] | {
        "preparation": good["columns"]["preparation"] | {"columns": list("abcdef")}
    }
    foreign = [good | {"fingerprint": "another"}, good | {"fingerprint": None}]
    foreign += [good | {"parameters": good["parameters"] | {"k": 3}}, good | {"columns": names}]
    for more in ([], PLOT):
        for content in foreign:
            write_torch(path / "checkpoint.pt", content)
            with pytest.raises(InputError, match=r"checkpoint\.pt: is of a run on other rows"):
                resume(base, "foreign", *more)
        for content in (b"", b"garbage", before["checkpoint.pt"][:-1], before["pretrained.pt"]):
            (path / "checkpoint.pt").write_bytes(content)
            with pytest.raises(InputError, match=r"checkpoint\.pt: .*: run without --resume"):
                resume(base, "foreign", *more)
    assert capsys.readouterr().out == "" and set(contents(path)) == NAMES
    (path / "checkpoint.pt").write_bytes(before["checkpoint.pt"])
    resume(base, "foreign")
    assert contents(path) == before


@POSIX
def test_two_runs_in_one_folder(base):
    path = base.folder("two")
    first = base.start("two", signal=["/pretrain-resume.pt", signal.SIGSTOP])
    first.stopped()
    for script in ("SwiftHydra", "pretrain"):
        refused(
            base.start("two", script=script), str(path), "another run is using this folder", "--out"
        )
    os.kill(first.pid, signal.SIGCONT)
    finish(first)
    assert np.array_equal(scores(path), base.scores)
    assert set(contents(path)) == NAMES
    assert load_checkpoint(path / "checkpoint.pt", "SwiftHydra")["fingerprint"]


@POSIX
def test_reading_needs_no_lock_and_a_lock_leaves_nothing(base, capsys):
    with RunFolder(base.where / "out", "made", "seen", 0).locked() as held:
        with pytest.raises(InputError, match="another run"), held.locked():
            pass
        main(
            [
                str(base.where / "made.npz"),
                "--eval-only",
                str(held.path / "checkpoint.pt"),
                "--quiet",
            ]
        )
        assert capsys.readouterr().out.startswith("AUC-ROC")
        (held.path / ".resume.pt.a_01bcd9.part").write_text("of a killed run")
    with held.locked():
        pass
    assert set(contents(held.path)) == NAMES


def test_what_is_not_of_a_run_stays_in_its_folder(tmp_path):
    """Folders of a file's name, and what ``score`` wrote beside the checkpoint."""
    folder = RunFolder(tmp_path, "made", "seen", 0)
    report = {"failed": None}
    for name in OPTIONAL:
        (folder.path / name).mkdir()
        folder.write_results(report, [], None, None)
        assert (folder.path / name).is_dir() and (folder.path / "DONE").exists()
        (folder.path / name).rmdir()
    scored = folder.path / "scores.csv"
    for first, stays in (("row,score,anomaly", True), (f"{RANKING},mine", True), (RANKING, False)):
        scored.write_text(first + "\n0,1,1\n")
        folder.write_results(report, [], None, None)
        assert scored.exists() == stays
    for name in ("pretrain-resume.pt", "resume.pt"):
        (folder.path / name).mkdir()
        with pytest.raises(InputError, match=f"{name}: is no ordinary file"):
            Store(folder.path / name, "", {}, False, print)


@POSIX
@pytest.mark.parametrize("level", ["made", "made/seen", "made/seen/seed0"])
def test_no_link_leads_out_of_the_folder_of_runs(tmp_path, level):
    out, other = tmp_path / "out", tmp_path / "other"
    (out / level).parent.mkdir(parents=True)
    other.mkdir()
    (out / level).symlink_to(other)
    with pytest.raises(InputError, match=r"a link leads to .*other.*--out"):
        RunFolder(out, "made", "seen", 0)
    assert list(other.iterdir()) == []
    (tmp_path / "link").symlink_to(other)  # the folder itself may be one: it was named
    assert RunFolder(tmp_path / "link", "made", "seen", 0).path.is_dir()
