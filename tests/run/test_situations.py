"""Commands in situations that change nothing of the rows' numbers: names, flags, links, -OO."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import ROOT, SHORT, made_table, run_hasty, run_script, run_warm

from swift_hydra.bench.pages import write_report
from swift_hydra.benchmark import main as benchmark_main
from swift_hydra.data.files import How, stream_table
from swift_hydra.data.reading import Reading
from swift_hydra.dataloader import RowOptions, load_rows
from swift_hydra.dataloader import main as dataloader_main
from swift_hydra.journal import Progress
from swift_hydra.pretrain import main as pretrain_main
from swift_hydra.run.folder import RunFolder
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra
from swift_hydra.SwiftHydra import main as swift_hydra_main

X, y = made_table(120, 3, 16)
COMMAND = [ROOT / "SwiftHydra.py", "t.csv", "--out", "out", "--preset", "paper", "--quiet", *SHORT]
RUN = ["out", "t", "seen", "seed0"]


def write(folder, names="a,b,c,label"):
    rows = np.column_stack([X, y])
    np.savetxt(folder / "t.csv", rows, delimiter=",", header=names, comments="", fmt="%.6g")


def names_in(folder):
    return list(SwiftHydra.load(folder.joinpath(*RUN, "checkpoint.pt")).feature_names_in_)


def test_a_run_with_other_names_is_not_done(tmp_path):
    write(tmp_path)
    first = run_script(*COMMAND, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert names_in(tmp_path) == ["a", "b", "c"]
    write(tmp_path, "b,a,c,label")
    again = run_script(*COMMAND, "--resume", cwd=tmp_path)
    assert again.returncode == 0 and names_in(tmp_path) == ["b", "a", "c"]
    assert again.stdout == first.stdout  # the same numbers
    refused = run_script(
        *COMMAND, "--eval-only", tmp_path.joinpath(*RUN, "checkpoint.pt"), "--plot", cwd=tmp_path
    )
    assert refused.returncode == 2 and "--eval-only" in refused.stderr


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ("--seed -1", "seed=-1 is not usable: give an integer from 0"),
        ("--max-normals 100", "--max-normals 100 has no effect with --preset paper"),
        ("--unlike-weight 0.1", "--unlike-weight 0.1 has no effect with --preset paper"),
        ("--generator none --n-synthetic 9", "--n-synthetic 9 has no effect with --generator none"),
        ("--k 4 --n-experts 3", "--k 4 is more than --n-experts 3"),
        ("--verify 0.5", "--verify 0.5 has no effect without --fast: give both, or neither"),
    ],
)
def test_a_flag_without_effect_is_refused(words, needle):
    with pytest.raises(InputError, match=re.escape(needle)):
        swift_hydra_main(["--preset", "paper", "--quiet", *words.split()])


OF_EXPERTS = ["--n-members 3", "--n-experts 8", "--k 1"]
OF_KNOWN = ["--unlike-weight 0.5", "--max-normals 100", "--max-centres 10"]


@pytest.mark.parametrize("words", [*OF_EXPERTS, *OF_KNOWN])
def test_experts_that_no_table_without_labels_has_are_refused(words):
    needle = re.escape(f"{words} has no effect with --label-column none: leave one of them out")
    with pytest.raises(InputError, match=needle):
        swift_hydra_main(["nowhere.csv", "--label-column", "none", *words.split()])


@pytest.mark.parametrize("words", OF_EXPERTS)
def test_paper_has_these_without_labels_too(words):
    given = ["nowhere.csv", "--label-column", "none", "--preset", "paper", *words.split()]
    with pytest.raises(InputError, match=r"nowhere\.csv"):  # and no word of the flag
        swift_hydra_main(given)


@pytest.mark.parametrize(
    "words",
    ["--false-alarms 0.1", "--resume", "--fast", "--plot"],
)
def test_flags_of_results_beside_a_checkpoint_are_refused(words):
    needle = f"{words} has no effect with --eval-only c.pt: leave one of them out"
    with pytest.raises(InputError, match=re.escape(needle)):
        swift_hydra_main(["--eval-only", "c.pt", *words.split()])


OF_LABELS = ["--anomaly-label 1", "--majority-anomalies", "--trust-normals", "--max-rows 9"]


@pytest.mark.parametrize(
    ("command", "words"),
    [(command, words) for command in (swift_hydra_main, pretrain_main) for words in OF_LABELS]
    + [(dataloader_main, words) for words in OF_LABELS[:2]],
)
def test_what_is_said_of_labels_that_are_not_there_is_refused(tmp_path, command, words):
    write(tmp_path)
    place = [] if command is dataloader_main else ["--out", str(tmp_path)]
    given = [str(tmp_path / "t.csv"), "--label-column", "none", *words.split(), *place]
    name = words.split()[0].strip("-").replace("-", "_")
    with pytest.raises(InputError, match=f"{name}=.* is for tables with labels"):
        command(given)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ("--source u", "--source u has no effect without --download: give both, or neither"),
        ("t.csv --download a", "dataset t.csv has no effect with --download a: leave one"),
        ("--dates --download a", "--dates has no effect with --download a: leave one"),
    ],
)
def test_a_download_and_a_table_are_two_things(words, needle):
    with pytest.raises(InputError, match=re.escape(needle)):
        dataloader_main(words.split())


@pytest.mark.parametrize(
    "words",
    [
        *("npz header yes", "npz encoding cp1252", "npz decimal ,"),
        *("parquet header yes", "parquet encoding cp1252"),  # which may hold texts of numbers
    ],
)
def test_what_only_a_text_file_has_is_refused(tmp_path, words):
    kind, name, value = words.split()
    path = tmp_path / f"t.{kind}"
    path.write_bytes(b"")
    needle = re.escape(f"{name}={value!r} is for text files: leave it out")
    with pytest.raises(InputError, match=needle):
        dataloader_main([str(path), f"--{name}", value])
    with pytest.raises(InputError, match=needle):
        next(stream_table(path, None, 1, how=How(Reading(**{name: value}))))


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        ("--figures", "--figures has no effect without --report: give both, or neither"),
        ("--parts fit", "--parts fit has no effect without --speed: give both, or neither"),
        ("--report --speed", "--speed has no effect with --report: leave one of them out"),
        ("--report --dirty d", "--dirty d has no effect with --report: leave one of them out"),
        ("--report --max-rows 5", "--max-rows 5 has no effect with --report"),
        ("--speed --protocols few", "--protocols few has no effect with --speed"),
        ("--dirty d --seeds 3", "--seeds 3 has no effect with --dirty d"),
        ("--speed --dirty d", "--dirty d has no effect with --speed: leave one of them out"),
    ],
)
def test_flags_of_the_benchmark_that_have_no_effect_are_refused(words, needle):
    with pytest.raises(InputError, match=needle):
        benchmark_main(words.split())


def test_figures_and_the_student_are_added_to_a_run_that_is_done(tmp_path):
    pytest.importorskip("matplotlib")
    write(tmp_path)
    first = run_hasty(*COMMAND, "--fast", "--verify", "0", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path.joinpath(*RUN)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    words = ["--fast", "--verify", "0", "--resume", "--plot"]
    wanted = {"report.html", "map.png"}
    if find_spec("onnx") and find_spec("onnxruntime"):
        words, wanted = [*words, "--export"], wanted | {"student.onnx"}
    again = run_hasty(*COMMAND, *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert after.items() >= before.items() and after.keys() - before.keys() >= wanted


def test_a_failed_run_leaves_nothing_of_the_one_before(tmp_path):
    folder = RunFolder(tmp_path, "a", "seen", 0)
    content = {"y_test": y}
    folder.write_results({"failed": None}, [], content, {"kind": "x"}, {"map.png": b"", "m": b""})
    (folder.path / "tensorboard").mkdir()
    for name in ("events.out.tfevents.1", "mine"):
        (folder.path / "tensorboard" / name).write_bytes(b"")
    folder.write_results({"failed": "a reason"}, [], None, None)
    left = {"log.jsonl", "report.json", "m", "tensorboard"}
    assert {path.name for path in folder.path.iterdir()} == left
    assert [path.name for path in (folder.path / "tensorboard").iterdir()] == ["mine"]


def test_figures_that_cannot_be_drawn_do_not_hide_a_run_that_is_done(tmp_path, monkeypatch, capsys):
    write(tmp_path)
    words = [*map(str, COMMAND[1:]), "--out", str(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    swift_hydra_main(words)
    result = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.setattr("swift_hydra.run.report.figures_of", lambda *_: 1 / 0)
    with pytest.raises(InputError, match=r"the results are written, .* \(ZeroDivisionError"):
        swift_hydra_main([*words, "--resume", "--plot"])
    assert capsys.readouterr().out.splitlines()[-1] == result


@pytest.mark.usefixtures("hasty_students")
def test_figures_stay_where_the_student_cannot_be_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    write(tmp_path)
    words = [*map(str, COMMAND[1:]), "--out", str(tmp_path / "out"), "--fast", "--verify", "0"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swift_hydra.runner.onnx_bytes", lambda *_: 1 / 0)
    monkeypatch.setattr("swift_hydra.run.row_map.MAP_ROWS", 20)  # t-SNE of 200 takes seconds
    with pytest.raises(InputError, match=r"the results are written, .* \(ZeroDivisionError"):
        swift_hydra_main([*words, "--plot", "--export"])
    assert [*(tmp_path / "out").rglob("report.html")]


@pytest.mark.filterwarnings("ignore:fast. the small mixture does not follow")
def test_a_student_that_is_not_exported_is_not_said_to_be_tried_again(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swift_hydra.distillation.student.STEPS", 20)
    monkeypatch.setattr("swift_hydra.distillation.student.LEAST_CORRELATION", 2.0)
    with pytest.raises(InputError, match=r"the results are written, .* \(--verify 0\)") as refused:
        swift_hydra_main([*map(str, COMMAND[1:]), "--fast", "--export"])
    assert "--resume" not in str(refused.value)
    assert [*(tmp_path / "out").rglob("DONE")]


@pytest.mark.parametrize("words", ["--generator smote", "--preset paper --generator none"])
def test_what_needs_a_known_anomaly_is_refused_before_the_work(tmp_path, monkeypatch, words):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [*map(str, COMMAND[1:]), "--out", "out", "--protocol", "one-class", *words.split()]
    with pytest.raises(InputError, match=r"generator=.* y marks n"):
        swift_hydra_main(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script_main", [swift_hydra_main, pretrain_main])
def test_a_seed_below_zero_is_refused(tmp_path, script_main):
    write(tmp_path)
    with pytest.raises(InputError, match="seed=-1"):
        script_main([str(tmp_path / "t.csv"), "--label-column", "none", "--seed", "-1"])


def test_time_left_is_of_the_steps_of_this_run(monkeypatch, capsys):
    """A stage that is taken up at step 900 has done a hundred in its ten seconds."""
    clock = iter([0.0, 0.0, *[10.0] * 9])
    monkeypatch.setattr("swift_hydra.journal.time.monotonic", lambda: next(clock))
    progress = Progress(interval=5.0)
    progress.terminal = False
    progress("cvae", 901, 1100)
    progress("cvae", 1000, 1100)
    assert "about 10 s left" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", ["resume.pt", "pretrained.pt", "report.json", "tensorboard"])
def test_a_link_in_the_folder_is_not_followed(tmp_path, name):
    write(tmp_path)
    mine = tmp_path / "mine"
    mine.write_text("precious")
    folder = tmp_path.joinpath(*RUN)
    folder.mkdir(parents=True)
    (folder / name).symlink_to(mine)
    done = run_script(*COMMAND, cwd=tmp_path)
    assert done.returncode == 2 and f"{name}: is a link" in done.stderr
    assert mine.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
@pytest.mark.parametrize("name", RunFolder.FILES)
def test_only_a_file_stands_where_a_run_has_its_own(tmp_path, make, name):
    """A pipe that is read keeps a run waiting for ever; both were refused after the work only."""
    write(tmp_path)
    folder = tmp_path / "out" / "t" / "seen" / "seed0"
    folder.mkdir(parents=True)
    getattr(os, make)(folder / name)
    for more in ([], ["--resume"]):
        words = [str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), "--quiet", *more]
        with pytest.raises(InputError, match=f"{name}: is no ordinary file: take it away"):
            swift_hydra_main(words)
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("command", [swift_hydra_main, pretrain_main])
@pytest.mark.parametrize("way", ["itself", "link", "hard link"])
@pytest.mark.parametrize(
    ("name", "protocol", "words"),
    [("scores.csv", "unlabelled", ["--label-column", "none"]), ("scores.npz", "seen", [])],
)
def test_a_run_does_not_replace_its_table(tmp_path, command, way, name, protocol, words):
    write(tmp_path)
    np.savez(tmp_path / "t.npz", X=X, y=y)
    given = tmp_path / f"t{name[-4:]}"
    mine = tmp_path / "out" / ("scores" if way == "itself" else "t") / protocol / "seed0" / name
    mine.parent.mkdir(parents=True)
    given.rename(mine)
    if way == "itself":
        given = mine
    else:
        (given.symlink_to if way == "link" else given.hardlink_to)(mine)
    before = mine.read_bytes()
    with pytest.raises(InputError, match=f"{name}: is what is read, it would be lost"):
        command([str(given), *words, "--out", str(tmp_path / "out"), "--quiet"])
    assert mine.read_bytes() == before and list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize(("flag", "value"), [("labelled", "5"), ("n_labelled", 3)])
@pytest.mark.parametrize("label_column", [None, "none"])
def test_a_number_of_labels_is_for_the_protocol_that_has_one(tmp_path, flag, value, label_column):
    write(tmp_path)
    options = {"label_column": label_column, flag: value}
    with pytest.raises(InputError, match=flag):
        load_rows(RowOptions(dataset=str(tmp_path / "t.csv"), **options))


def test_pages_are_not_made_of_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no record"):
        write_report(tmp_path)


@pytest.mark.parametrize("script", ["SwiftHydra", "pretrain", "benchmark", "dataloader"])
def test_without_docstrings(script):
    done = run_warm(ROOT / f"{script}.py", "-h", python=(sys.executable, "-OO"))
    assert done.returncode == 0 and "usage" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_an_error_that_cannot_be_said_keeps_its_code():
    command = [sys.executable, str(ROOT / "dataloader.py"), "nothere.csv"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stderr=full, timeout=60).returncode == 2
