"""Ends of a run at random moments: SIGKILL, full disks, lost permissions."""

import contextlib
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import ROOT, few_candidates, made_table, run_script, trained_cvae, trained_mixture
from runs import NAMES, POSIX, STEPS, contents, finish, refused, scores

from swift_hydra.data.formats import _unread
from swift_hydra.files import file_lock, part, write_file
from swift_hydra.journal import Journal
from swift_hydra.settings import want_of_memory
from swift_hydra.SwiftHydra import SwiftHydra

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
    resumed = finish(base.start("ctrl-c", "--resume")).out
    stage = re.search("resuming after (.+)", resumed)[1]
    report = json.loads((base.folder("ctrl-c") / "report.json").read_text())
    assert report["resumed_after"] == stage
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
    "preset, generator, n_members",
    [("full", "rl", 1), ("paper", "search", 2), ("paper", "gradient", 1)],
)
def test_cut_off_after_every_stage_the_fit_is_the_same(preset, generator, n_members):
    table = made_table(n=120, n_anomalies=16)

    def fit(journal):
        model = SwiftHydra(
            preset=preset,
            generator=generator,
            n_members=n_members,
            cvae_steps=12,
            detector_steps=12,
            mixture_steps=24,
            n_episodes=3,
            n_synthetic=50,
        )
        return model.fit(*table, journal=journal), journal.log

    with few_candidates():
        (model, log), met = interrupted(fit)
        whole, whole_log = fit(Journal())
    assert np.array_equal(model.synthetic_, whole.synthetic_)
    assert np.array_equal(model.decision_scores_, whole.decision_scores_)
    assert np.array_equal(model.decision_function(table[0]), whole.decision_function(table[0]))
    assert model.episode_log_ == whole.episode_log_
    assert log == whole_log
    assert {entry["stage"] for entry in log} >= {"episodes", "mixture"}
    more = {"cvae-half0", "cvae-half1", "one-class"} if preset == "full" else set()
    more |= {"mixture-member2"} if n_members > 1 else set()
    assert {stage for stage, _ in met} == {"cvae", "detector", "episodes", "mixture"} | more


def test_cut_off_within_a_training_the_network_is_the_same(table):
    X, y = torch.from_numpy(table[0]), torch.from_numpy(table[1])
    folds = np.arange(len(y)) % 4

    def train(journal):
        cvae = trained_cvae(X, y, steps=35, journal=journal)
        mixture = trained_mixture(
            X, y, steps=35, folds=folds, generated=X[:20] + 1, journal=journal
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
@POSIX
def test_several_that_write_to_one_place_do_not_take_each_others_parts(tmp_path, monkeypatch):
    """One that is not held yet looks like one that was left: what took it made room, no more."""
    opened, new = [], os.open

    def open_and_lose(name, *given):
        opened.append(name)
        handle = new(name, *given)
        if len(opened) == 1:
            os.unlink(name)
        return handle

    monkeypatch.setattr("swift_hydra.files.os.open", open_and_lose)
    write_file(tmp_path / "s.csv", lambda file: file.write(b"scores"))
    assert len(opened) == 2
    assert contents(tmp_path) == {"s.csv": b"scores"}


def test_only_what_a_killed_run_left_goes(tmp_path):
    names = [f".s.csv.{middle}.part" for middle in ("backup", "2024", "Backup_1", "a.bcdef0", "")]
    with part(tmp_path / "s.csv", lambda file: file.write(b"half")) as left:
        shutil.copy(left, f"{left}.kept")
    os.rename(f"{left}.kept", left)
    for name in names:
        (tmp_path / name).write_text("mine")
    write_file(tmp_path / "s.csv", lambda file: file.write(b"new"))
    assert {path.name for path in tmp_path.iterdir()} == {"s.csv", *names}


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (OSError("Could not find/load shared object file 'libllvmlite.so'"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ImportError("x.so: undefined symbol: f"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, memory):
    said = want_of_memory(error)
    assert (said is not None) == memory
    assert not memory or said.startswith("there is not enough memory")


@pytest.mark.parametrize(
    ("error", "damaged"),
    [
        (OSError("Failed to launch worker thread: Resource temporarily unavailable"), False),
        (OSError("malloc of size 4096 failed"), False),
        (OSError("Couldn't deserialize thrift"), True),
    ],
)
def test_a_parquet_file_is_not_damaged_where_the_machine_lacks_something(error, damaged):
    said = str(_unread("t.parquet", "is damaged", error))
    assert ("write it again" in said) == damaged
    assert ("cannot be read here" in said) != damaged
