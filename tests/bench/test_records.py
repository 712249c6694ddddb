"""Records are whole, sorted, the same bytes in whatever order they come, and written once."""

import json
import multiprocessing
import os
import random

import pytest

from swift_hydra.bench.places import DIRTY, KEEL, LABELS, POLICY, RECORDS
from swift_hydra.bench.records import (
    as_line,
    find_record,
    key_of,
    load_records,
    lock_record,
    merge_records,
    merged_path,
    read_records,
    remove_records,
    working_path,
    write_record,
)
from swift_hydra.settings import InputError

COMMITTED = (RECORDS, LABELS, KEEL, DIRTY, POLICY)


def made(method="full/rl", dataset="a", seed=0, **more):
    named = {"method": method, "protocol": "seen", "dataset": dataset, "seed": seed}
    measured = dict.fromkeys(("auc_roc", "auc_pr", "fit_seconds", "score_seconds"), 0.5)
    return {**named, "max_rows": 0, "failed": None, **measured, **more}


def test_the_bytes_do_not_depend_on_the_order(tmp_path):
    records = [made(dataset=d, seed=s, z=1, a=0.1) for d in "ab" for s in (0, 1, 2, 10)]
    contents = set()
    for order in range(3):
        folder = tmp_path / str(order)
        for record in random.Random(order).sample(records, len(records)):
            keys = random.Random(order).sample(list(record), len(record))
            write_record(folder, {key: record[key] for key in keys})
            if order == 1:
                merge_records(folder)
        merge_records(folder)
        contents.add(merged_path(folder, "seen").read_bytes())
        assert load_records(folder) == records
    (content,) = contents
    lines = content.decode().splitlines(keepends=True)
    assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2, 10] * 2
    assert lines[0] == as_line(records[0])
    assert lines[0].startswith('{"method": "full/rl", "protocol": "seen", "dataset": "a", "seed"')


def test_a_record_is_found_before_and_after_the_merge(tmp_path):
    record = made()
    key = key_of(record)
    assert find_record(tmp_path, key) is None
    assert load_records(tmp_path) == []
    write_record(tmp_path, record)
    assert find_record(tmp_path, key) == record
    assert load_records(tmp_path) == [record]
    merge_records(tmp_path)
    assert not working_path(tmp_path, key).exists()
    assert find_record(tmp_path, key) == record
    assert load_records(tmp_path) == [record]


def test_names_of_protocols_with_a_point_are_kept_apart(tmp_path):
    records = [made() | {"protocol": f"weak-{labelled}"} for labelled in ("0", "0.05", "0.5")]
    for record in records:
        write_record(tmp_path, record)
    names = {path.name for path in (tmp_path / ".cells").glob("*.json")}
    assert "full-rl.weak-0.05.a-seed0.json" in names and len(names) == 3
    merge_records(tmp_path)
    assert load_records(tmp_path) == records
    assert [find_record(tmp_path, key_of(record)) for record in records] == records
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {
        f"{record['protocol']}.jsonl" for record in records
    }


def test_a_merge_that_was_cut_off_is_finished_by_the_next(tmp_path):
    """Killed between its rename and the deletion of the working files."""
    record = made()
    write_record(tmp_path, record)
    left = working_path(tmp_path, key_of(record)).read_bytes()
    merge_records(tmp_path)
    working_path(tmp_path, key_of(record)).write_bytes(left)
    (tmp_path / ".seen.jsonl.x.part").write_text("half a fi")
    write_record(tmp_path, made(dataset="b"))
    merge_records(tmp_path)
    assert [r["dataset"] for r in load_records(tmp_path)] == ["a", "b"]
    assert not list((tmp_path / ".cells").glob("*.json"))


def test_a_merged_record_is_never_written_over(tmp_path):
    write_record(tmp_path, made(by="the first"))
    merge_records(tmp_path)
    write_record(tmp_path, made(by="the second"))
    merge_records(tmp_path)
    assert load_records(tmp_path) == [made(by="the first")]


def test_removed_records_are_gone_and_the_others_stay(tmp_path):
    records = [made(dataset="a"), made(dataset="b"), made(method="kNN")]
    for record in records[:2]:
        write_record(tmp_path, record)
    merge_records(tmp_path)
    write_record(tmp_path, records[2])  # not merged yet
    remove_records(tmp_path, {key_of(records[0]), key_of(records[2])})
    assert load_records(tmp_path) == [records[1]]
    remove_records(tmp_path, {key_of(records[1])})
    assert load_records(tmp_path) == []
    assert not list(tmp_path.glob("*.jsonl"))


def _write_and_merge(folder, seeds):
    for seed in seeds:
        write_record(folder, made(seed=seed))
        merge_records(folder)


def test_sweeps_that_merge_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_write_and_merge, args=(tmp_path, range(first, 40, 4)))
        for first in range(4)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 4
    assert [record["seed"] for record in load_records(tmp_path)] == list(range(40))
    assert not list((tmp_path / ".cells").glob("*.json"))


ODD = [{"method": 1}, {"seed": "0"}, {"dataset": None}, {"protocol": []}, {"failed": 3}]
ODD += [{"protocol": "../seen"}, {"protocol": "weak-.05"}, {"auc_roc": None}, {"fit_seconds": "1"}]


@pytest.mark.parametrize(
    "line",
    [
        *("<<<<<<< HEAD", '{"method": "kNN"}', "[1]", '"text"', "[" * 100_000, "\udcff", ""),
        *(as_line(made("kNN", seed=1) | odd).strip() for odd in ODD),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = merged_path(tmp_path, "seen")
    path.write_bytes(os.fsencode(as_line(made("kNN")) + line + "\n"))
    with pytest.raises(InputError, match=r"seen\.jsonl, line 2: is not a record"):
        load_records(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_among_the_records_is_named(tmp_path):
    os.mkfifo(merged_path(tmp_path, "seen"))
    with pytest.raises(InputError, match=r"seen\.jsonl: is no regular file"):
        load_records(tmp_path)


def test_sets_of_long_names_have_files_of_their_own(tmp_path):
    records = [made(dataset="x" * 240 + end) for end in "ab"] + [made(dataset="\u6f22" * 80)]
    for record in records:
        with lock_record(tmp_path, key_of(record), "worker"):
            write_record(tmp_path, record)
    assert load_records(tmp_path) == records
    merge_records(tmp_path)
    assert load_records(tmp_path) == records


def test_the_committed_records_are_in_this_format():
    paths = sorted(path for folder in COMMITTED for path in folder.glob("*.jsonl"))
    assert len({path.parent for path in paths}) == len(COMMITTED)
    for path in paths:
        records = read_records(path)
        assert {merged_path(path.parent, key.protocol) for key in records} == {path}
        assert path.read_text() == "".join(as_line(records[key]) for key in sorted(records))
