"""Tables and metrics are read strictly: what is not exactly of the shape that a stage writes is a note, and is not used."""

import gzip
import json

import pandas as pd
import pytest
import synthetic

from maxpo_bench.errors import InputError
from maxpo_bench.report import load
from maxpo_bench.settings import task_file

CURVE = "seed,step,samples,mean_reward,pass_at_1,pass_at_k,max_at_k,entropy\n"
GOOD = "0,0,0,0.1,0.1,0.2,0.3,2.0\n0,16,1024,0.2,0.1,0.2,0.4,1.5\n"


def read(tmp_path, text, **options):
    path, notes = tmp_path / "curve.csv", []
    path.write_text(text)
    table = load.read_table(path, notes, **{"columns": load.CURVE, "keys": ["seed", "step"], **options})
    return table, notes


def test_a_good_table_is_read_without_a_note(tmp_path):
    table, notes = read(tmp_path, CURVE + GOOD)
    assert notes == [] and list(table) == CURVE.strip().split(",") and len(table) == 2


@pytest.mark.parametrize(
    "text, words",
    [
        (CURVE + GOOD.replace("\n", ",\n"), "row 2 has 9 fields, the header has 8"),  # pandas would read an index, or drop it
        (CURVE + "," + GOOD, "row 2 has 9 fields, the header has 8"),
        (CURVE + GOOD.replace("0.1,0.1", "0.1,,0.1", 1), "row 2 has 9 fields, the header has 8"),
        (CURVE + GOOD + '0,"32,1\n', "not readable"),
        (CURVE.replace("\n", ",\n") + GOOD.replace("\n", ",\n"), "a column too many"),
        (CURVE.replace("seed,step", "step,seed") + GOOD, ""),  # columns go by name
        (CURVE.replace("max_at_k", "max") + GOOD, "has no column max_at_k"),
        (CURVE.replace("entropy", "max_at_k") + GOOD, "a column too many"),
        (CURVE + GOOD.replace("0.3", "much"), "column max_at_k must hold numbers, not 'much' in row 2"),
        (CURVE + GOOD.replace("0.3", "True"), "column max_at_k must hold numbers"),
        (CURVE + GOOD.replace("0,16", "0.5,16"), "column seed must hold a whole number"),
        (CURVE + GOOD.replace("0,16", ",16"), "column seed must hold a whole number"),
        (CURVE + GOOD + GOOD, "seed 0, step 0 is there twice"),
        (CURVE + GOOD + "0,32,2048,0.1\n", "row 4 has 4 fields, the header has 8"),
        (CURVE + GOOD.replace("0.3", "inf"), "no finite number in 1 of max_at_k"),
        (CURVE + GOOD.replace("0.3", ""), "no finite number in 1 of max_at_k"),
        ("", ""),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, words):
    table, notes = read(tmp_path, text)
    assert len(notes) == (words != "") and all(words in note and "\n" not in note for note in notes)
    kept = not words or words.startswith("no finite")
    assert (table is not None) == (kept and text != "")


def test_a_ladder_has_exactly_its_columns(tmp_path):
    text = "seed,step,k,max,pass,more\n0,0,1,0.1,0.1,3\n"
    table, notes = read(tmp_path, text, columns=load.LADDER, keys=["seed", "step", "k"], exact=True)
    assert table is None and "a column too many (more)" in notes[0]


def test_broken_gzip_is_a_note(tmp_path):
    for data in (b"not gzip", gzip.compress((CURVE + GOOD * 200).encode())[:-30]):
        (tmp_path / "curve.csv.gz").write_bytes(data)
        notes = []
        assert load.read_table(tmp_path / "curve.csv.gz", notes, load.CURVE) is None
        assert len(notes) == 1 and "not readable" in notes[0]


def test_the_compressed_table_is_read_and_else_the_plain_one(tmp_path):
    root = synthetic.write(tmp_path, ("bandit",), ("pkpo", "maxpo"), studies=False)
    packed = load.read(root)
    folder = root / "results" / "runs" / "bandit" / "pkpo"
    for name in ("curve", "ladder"):
        (folder / f"{name}.csv").write_bytes(gzip.decompress((folder / f"{name}.csv.gz").read_bytes()))
        (folder / f"{name}.csv.gz").unlink()
    plain = load.read(root)
    pd.testing.assert_frame_equal(packed.curves, plain.curves)
    pd.testing.assert_frame_equal(packed.ladders, plain.ladders)
    assert len(plain.curves) and plain.notes == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seeds": [0]}, "final.max@K has 2 values for 1 seeds"),
        ({"seeds": [0, 0]}, "a seed is there twice"),
        ({"seeds": [0, 10_000]}, "seeds from 10000 on are for tuning"),
        ({"seeds": [0, "1"]}, "seeds is not a list of whole numbers"),
        ({"final": []}, "final is not a mapping"),
        ({"final": {"max@K": 3}}, "final.max@K is not a list"),
        ({"final": {"ladder": [1]}}, "final.ladder is not a mapping"),
        ({"final": {"max@K": [1, 2], "ladder": {"4": [1]}}}, "final.ladder.4 has 1 values for 2 seeds"),
        ({"exact": {"max@K": [1]}}, "exact.max@K has 1 values for 2 seeds"),
        ({"status": "good"}, "unknown status 'good'"),
    ],
)
def test_an_edited_metrics_file_is_a_failed_cell(tmp_path, change, words):
    folder = tmp_path / "results" / "runs" / "maze" / "pkpo"
    folder.mkdir(parents=True)
    whole = {"status": "ok", "reason": "", "seeds": [0, 1], "final": {"max@K": [0.1, 0.2]}}
    (folder / "metrics.json").write_text(json.dumps(whole))
    assert load.read_cell(tmp_path, "maze", "pkpo").values("max@K") == {0: 0.1, 1: 0.2}
    (folder / "metrics.json").write_text(json.dumps(whole | change))
    cell = load.read_cell(tmp_path, "maze", "pkpo")
    assert cell.status == "failed" and words in cell.reason and not cell.usable


def test_seeds_on_which_settings_were_tried_are_left_out(tmp_path):
    root = synthetic.write(tmp_path, ("bandit",), ("pkpo", "maxpo"), seeds=4, studies=False)
    synthetic.edit(root, "bandit", "pkpo", lambda m: m.update(seeds=[0, 1, 100, 109]))
    synthetic.edit_table(root, "runs/bandit/pkpo/curve.csv.gz", lambda t: t.replace({"seed": {2: 100, 3: 109}}))
    results = load.read(root)
    assert sorted(results.cells["bandit", "pkpo"].values("max@K")) == [0, 1]
    assert sorted(results.curves.query("estimator == 'pkpo'")["seed"].unique()) == [0, 1]


def test_every_task_of_the_project_has_its_aggregate():
    """The two groups of tasks: by kind, and for kinds from a file by tags."""
    paths = list((synthetic.ROOT / "tasks").glob("*.yaml"))
    language = {p.stem for p in paths if "language" in p.read_text().split("tags:")[1].split("\n")[0]}
    for path in paths:
        assert load.is_language(task_file.load(str(path))) == (path.stem in language), path.stem
    assert len(language) >= 3


@pytest.mark.parametrize("text", ["tasks: [", "- maze", "tasks: maze", "tasks: [maze]\ntasks: [bandit]\nestimators: [maxpo]"])
def test_a_broken_list_of_cells_is_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InputError, match="params.yaml") as caught:
        load.read(tmp_path)
    assert "\n" not in str(caught.value)
