"""The long tasks: shown where they ran, one line where they did not."""

import pandas as pd
import pytest
import synthetic

from maxpo_bench.report import build, load, page


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = synthetic.write(tmp_path_factory.mktemp("long"), ("maze",), ("pkpo", "maxpo"), studies=False)
    synthetic.write_long(root)
    assert build(root) == 0
    return root


def test_what_ran_is_read_and_what_did_not_is_named(project):
    results = load.read(project)
    assert list(results.long.tasks) == ["sums"] and results.long.estimators == ["rloo", "pkpo", "maxpo"]
    assert results.not_run == ["gsm8k"] and list(results.tasks) == ["maze"]
    said = page.long_said(results.long, results.not_run)["paragraphs"]
    assert "LoRA of rank 16 on q_proj, v_proj: the adapter alone is trained, and the variance is that of its parameters" in said[0]
    assert said[1].startswith("Not run: gsm8k (`make repro-long`")


def test_they_are_shown_with_intervals_before_and_after_and_what_a_run_costs(project):
    text = (project / "results" / "report.md").read_text()
    part = text[text.index("## Pretrained models") : text.index("## Along training")]
    for needed in ("figures/long_tasks.svg", "figures/long_curves.svg", "figures/long_variance.svg", "before training", "pass@1"):
        assert needed in part, needed
    assert "| rloo " in part and "| grpo " not in part
    costs = pd.read_csv(project / "results" / "tables" / "long_costs.csv").set_index("estimator")
    timing = load.read(project).long.cells["sums", "maxpo"].timing
    assert costs.loc["maxpo", "one run [hours]"] == pytest.approx(sum(timing["phases"].values()) / 3600, rel=1e-4)
    assert text.index("all of them") > text.index("## Time")


def test_nothing_ran_is_one_line(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    synthetic.write_long(root, estimators=())
    results = load.read(root)
    assert results.long.tasks == {} and results.notes == []
    assert page.long_said(results.long, results.not_run)["paragraphs"] == ["Not run: sums, gsm8k (`make repro-long`, hours each)."]


def test_full_weights_are_said(tmp_path):
    root = synthetic.write(tmp_path, ("maze",), ("pkpo", "maxpo"), studies=False)
    synthetic.write_long(root)
    path = root / "tasks" / "sums.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("lora:")))
    results = load.read(root)
    assert "all weights of the model are trained" in page.long_said(results.long, results.not_run)["paragraphs"][0]
