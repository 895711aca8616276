"""A made-up project with results of the real shape, for the tests of the report and of compare. Nothing here is measured."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from maxpo_bench.settings import task_file

ROOT = Path(__file__).parents[2]
TASKS = (
    "bandit",
    "local_optimum",
    "maze",
    "frozenlake",
    "cliffwalking",
    "cartpole",
    "countdown3",
    "countdown4",
    "text_maze",
    "chain_sums",
)
ESTIMATORS = ("rloo", "grpo", "passk_training", "bon_mean", "pkpo", "maxpo", "tailrl", "rs_grpo", "fitted_blend")
GAIN = {
    "rloo": -0.05,
    "grpo": 0.0,
    "passk_training": 0.05,
    "bon_mean": 0.03,
    "pkpo": 0.10,
    "maxpo": 0.12,
    "tailrl": 0.08,
    "rs_grpo": 0.06,
    "fitted_blend": 0.125,
}
RUNGS = (1, 2, 4, 8, 16, 32)
STEPS = (0, 16, 32, 48, 64)
TASK = """version: 1
kind: bandit
tags: [synthetic]
title: "A made-up task for <tests> & nothing else"
arms: {count: 10}
k: 4
group_size: 16
groups: 64
steps: 64
seeds: %d
optimiser: {lr: 0.1}
"""


LANGUAGE_TASK = TASK.replace("kind: bandit", "kind: words.py:Words").replace("tags: [synthetic]", "tags: [synthetic, language]")
LANGUAGE_TASK = LANGUAGE_TASK.replace("arms: {count: 10}\n", "")


def write(root, tasks=TASKS, estimators=ESTIMATORS, seeds=None, studies=True, steps=STEPS):
    """A project folder with tasks, params.yaml, claims.yaml and results. seeds: {task: count} or a count; returns root."""
    root = Path(root)
    (root / "tasks").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "claims.yaml", root / "claims.yaml")
    (root / "tasks" / "words.py").write_text("class Words:\n    pass\n")
    lists = {
        "tasks": list(tasks),
        "estimators": list(estimators),
        "studies": ["properties", "cost", "regimes"] if studies else [],
        "variance_policy": "maxpo",
    }
    (root / "params.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in lists.items()))
    for number, task in enumerate(tasks):
        count = seeds.get(task, 4) if isinstance(seeds, dict) else seeds or (10 if number < 6 else 4)
        path = root / "tasks" / f"{task}.yaml"
        path.write_text((TASK if number < 6 else LANGUAGE_TASK) % count)
        sha256 = task_file.load(str(path)).sha256
        for estimator in estimators:
            write_cell(root, task, estimator, number, count, steps, sha256)
        write_variance(root, task, number, estimators)
    if studies:
        write_studies(root)
    return root


def write_cell(root, task, estimator, number, num_seeds, steps, task_sha256):
    """One cell: curves rise from a start per task to an end per estimator, seeds share their noise across estimators."""
    folder = Path(root) / "results" / "runs" / task / estimator
    folder.mkdir(parents=True, exist_ok=True)
    if estimator == "passk_training" and number in (0, 5):
        return cell_json(
            folder, task, estimator, num_seeds, task_sha256, "not_applicable", "passk_training: rewards must be 0 or 1"
        )
    shared = np.random.default_rng([number, 1]).normal(size=(num_seeds, len(steps)))
    own = np.random.default_rng([number, sum(map(ord, estimator))]).normal(size=(num_seeds, len(steps)))
    start, reach = 0.15 + 0.06 * number, GAIN.get(estimator, 0.02) * (1.5 - 0.12 * number)
    rows, rungs = [], []
    factor = 1 if number != 5 else 100  # one task with rewards beyond 1
    for seed in range(num_seeds):
        for i, step in enumerate(steps):
            progress = 1 - np.exp(-2.5 * i / (len(steps) - 1))
            level = start + (0.12 + reach) * progress + 0.02 * shared[seed, i] + 0.012 * own[seed, i]
            first = 0.4 * start + 0.1 * progress * (1 + 2 * GAIN["maxpo"] - GAIN.get(estimator, 0)) + 0.01 * own[seed, i]
            row = {
                "seed": seed,
                "step": step,
                "samples": step * 1024,
                "mean_reward": first * factor,
                "pass_at_1": np.clip(first, 0, 1),
                "pass_at_k": np.clip(level, 0, 1),
                "max_at_k": level * factor,
                "entropy": 2 - progress,
                "distinct": 0.9 - 0.2 * progress,
            }
            rows.append(row)
            if step in (steps[0], steps[-1]):
                ladder = {
                    k: first + (level - first) * np.log2(k) / 2 if k <= 4 else 1 - (1 - level) * (4 / k) ** 0.5 for k in RUNGS
                }
                rungs += [
                    {"seed": seed, "step": step, "k": k, "pass": np.clip(v, 0, 1), "max": v * factor} for k, v in ladder.items()
                ]
    for name, table in (("curve", rows), ("ladder", rungs)):
        text = pd.DataFrame(table).to_csv(index=False, float_format="%.12g")
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    ends = [r for r in rows if r["step"] == steps[-1]]
    final = {
        name: [float(r[key]) for r in ends]
        for name, key in (("mean_reward", "mean_reward"), ("pass@1", "pass_at_1"), ("pass@K", "pass_at_k"), ("max@K", "max_at_k"))
    }
    for name, key in (("ladder", "max"), ("pass_ladder", "pass")):
        final[name] = {str(k): [float(r[key]) for r in rungs if r["k"] == k and r["step"] == steps[-1]] for k in RUNGS}
    base = (0.4 + number) * (1.3 if number > 5 else 0.2)
    phases = {
        "sample": base,
        "reward": 0.1 * base,
        "advantage": 0.02 * base * (1 + len(estimator) / 30),
        "update": 0.8 * base,
        "evaluate": base,
    }
    timing = {"wall_s": 3 * base, "phases": phases, "num_seeds": num_seeds, "num_workers": 2, "machine": "Linux x86_64, 2 cores"}
    (folder / "timing.json").write_text(json.dumps(timing))
    cell_json(folder, task, estimator, num_seeds, task_sha256, "ok", "", final)


def cell_json(folder, task, estimator, num_seeds, task_sha256, status, reason, final=None):
    source = ROOT / "maxpo_bench" / "estimators" / f"{estimator}.py"
    metrics = {
        "task": task,
        "estimator": estimator,
        "status": status,
        "reason": reason,
        "k": 4,
        "group_size": 16,
        "seeds": list(range(num_seeds)),
        "verifier_errors": 0,
    }
    provenance = {
        "task_sha256": task_sha256,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else "new",
        "probe": {"rewards": [1, 0, 0, 1], "k": 4, "advantages": [1.0, -1.0, -1.0, 1.0]},
        "versions": {"maxpo-bench": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.12.0"},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=1, sort_keys=True))
    if final is not None:
        metrics |= {"final": final, "exact": None, "extras": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1, sort_keys=True))


def edit(root, task, estimator, change):
    """Apply change(metrics dict) to one cell's metrics.json (NaN allowed, as a hand edit would)."""
    path = Path(root) / "results" / "runs" / task / estimator / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics, indent=1, sort_keys=True))


def edit_table(root, path, change):
    """Apply change(DataFrame) -> DataFrame to a table below results/, compressed or not."""
    path = Path(root) / "results" / path
    text = change(pd.read_csv(path)).to_csv(index=False).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def write_variance(root, task, number, estimators):
    rows, rng = [], np.random.default_rng([number, 3])
    for checkpoint in ("initial", "middle", "final"):
        for estimator in estimators:
            ratio = {"pkpo": 0.8 + 0.12 * number, "fitted_blend": 0.86}.get(estimator, 1.0) * rng.uniform(0.97, 1.03)
            same = estimator in ("pkpo", "fitted_blend")
            rows.append(
                {
                    "checkpoint": checkpoint,
                    "estimator": estimator,
                    "k": 4,
                    "group_size": 16,
                    "num_groups": 256,
                    "trace_cov": 2.0 * ratio,
                    "snr": 0.3 / ratio / (1 + number),
                    "cosine": 0.9,
                    "bias": 0.01,
                    "bias_low": 0,
                    "bias_high": 0.1,
                    "ratio_to_maxpo": ratio if same else np.nan,
                    "ratio_low": ratio * 0.93 if same else np.nan,
                    "ratio_high": ratio * 1.075 if same else np.nan,
                }
            )
    folder = Path(root) / "results" / "variance"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{task}.csv", index=False, float_format="%.9g")


def write_studies(root):
    folder = Path(root) / "results" / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    loose = ("pkpo", "fitted_blend", "reinforce")
    pd.DataFrame(
        [
            {
                "estimator": e,
                "unbiased_for": "J_K" if e in ("maxpo", "pkpo", "fitted_blend") else "none",
                "parallel_to": "J_K",
                "scale": "1",
                "bias_j1": 0.5,
                "bias_jk": 0.0 if e == "maxpo" else 0.1,
                "valid_k": "1..N-1",
                "centred": "no" if e in loose else "yes",
                "cost": "N log N",
                "source": "this project" if e == "fitted_blend" else "a paper",
            }
            for e in ESTIMATORS
        ]
    ).to_csv(folder / "properties.csv", index=False)
    pd.DataFrame(
        [
            {
                "estimator": e,
                "group_size": n,
                "num_groups": 64,
                "k": 4,
                "time_us_per_group": 0.02 * n * np.log2(n),
                "peak_memory_per_input": 4.0,
            }
            for e in (*ESTIMATORS, "l2o_quadratic", "subset_brute_force")
            for n in (16, 64, 256, 1024, 4096)
        ]
    ).to_csv(folder / "cost.csv", index=False)
    rows, rng = [], np.random.default_rng(5)
    for kind in ("10 arms", "orthogonal"):
        for p in (0.05, 0.5, 0.95):
            for size in ("2/8", "4/16"):
                ratio = {"regime": f"{kind}, {p}, {size}", "estimator": "pkpo", "ratio": rng.uniform(0.6, 1.8), "exact": True}
                rows.append({"geometry": kind, "success_probability": p, "k_over_n": size, **ratio})
    pd.DataFrame(rows).to_csv(folder / "regimes.csv", index=False)


METRICS = ("max@K", "pass@K", "pass@1", "mean_reward")
RATES, KS = (0.025, 0.05, 0.1, 0.2, 0.4), (1, 2, 4, 8)


def write_trained(root, tasks=("maze", "countdown3"), estimators=ESTIMATORS, seeds=6):
    """results/trained/ and results/own_best/: learning rates peak at .1 (grpo .2), K is best trained for what is evaluated."""
    for number, task in enumerate(tasks):

        def row(estimator, seed, gain=0.0, task=task, number=number, **setting):
            setting = {"lr": 0.1, "k": 4, "group_size": 16, "groups": 64, "epochs": 1, "clip": 0.0} | setting
            noise = np.random.default_rng([number, seed % 100]).normal() * 0.02
            noise += np.random.default_rng([number, seed % 100, sum(map(ord, estimator))]).normal() * 0.01
            best = 0.4 + GAIN.get(estimator, 0.02) + gain + noise
            row = {"task": task, "estimator": estimator, **setting, "seed": seed, "status": "ok"}
            return row | {"mean_reward": best / 2, "max_at_k": best, "pass_at_1": best / 3, "pass_at_k": best}

        def rate(estimator, seed, lr, row=row):
            peak = 0.2 if estimator == "grpo" else 0.1
            return row(estimator, seed, -0.05 * np.log2(lr / peak) ** 2, lr=lr)

        def trained_for(estimator, seed, k, row=row):
            found = row(estimator, seed, k=k)
            gap = 0 if estimator == "grpo" else 1
            return found | {
                f"max_at_{j}": found["max_at_k"] + 0.1 * np.log2(j) - 0.03 * gap * abs(np.log2(j / k)) for j in (*KS, 16)
            }

        three, seeds_of = [e for e in ("maxpo", "pkpo", "grpo") if e in estimators], range(seeds)
        some = [(e, s) for e in three for s in seeds_of]
        tables = {
            "learning_rate": [rate(e, 10_000 + s, lr) for e in estimators for lr in RATES for s in seeds_of],
            "own_best": [rate(e, s, 0.2 if e == "grpo" else 0.1) for e in estimators for s in seeds_of],
            "k_trained": [trained_for(e, s, k) for k in KS for e, s in some],
            "group_size": [row(e, s, 0.01 * np.log2(n), group_size=n, groups=1024 // n) for n in (8, 16, 32) for e, s in some],
            "off_policy": [row(e, s, 0.01 * (n - 1), epochs=n, clip=0.2 * (n - 1)) for n in (1, 2) for e, s in some],
        }
        for study, rows in tables.items():
            folder = Path(root) / "results" / "trained" / study
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(folder / f"{task}.csv", index=False)
        for estimator in estimators:
            kind = Path(root) / "results"
            if (kind / "runs" / task / estimator).is_dir():
                shutil.copytree(kind / "runs" / task / estimator, kind / "own_best" / task / estimator, dirs_exist_ok=True)


def write_cheap(root, gains, tasks=("bandit", "maze"), seeds=3, noise=0.0):
    """results/estimators/: estimators ahead of maxpo by their gain on every seed, and params.yaml lists them."""
    listed = json.dumps({"estimators": list(gains), "tasks": list(tasks)})
    path = Path(root) / "params.yaml"
    path.write_text(path.read_text() + f"trained_estimators: {listed}\n")
    rng = np.random.default_rng(0)
    for task in tasks:
        mine = json.loads((Path(root) / "results" / "runs" / task / "maxpo" / "metrics.json").read_text())
        for estimator, gain in gains.items():
            folder = Path(root) / "results" / "estimators" / task / estimator
            folder.mkdir(parents=True)
            final = {
                m: [v + gain + noise * rng.normal() for v in mine["final"][m][:seeds]]
                for m in ("max@K", "pass@K", "pass@1", "mean_reward")
            }
            cell_json(folder, task, estimator, seeds, "", "ok", "", final)


def write_long(root, task="sums", estimators=("rloo", "pkpo", "maxpo"), absent="gsm8k"):
    """A long task with LoRA that ran under some of its estimators, and one that did not run."""
    root = Path(root)
    listed = {"long_tasks": [task, absent], "long_estimators": ["rloo", "grpo", "pkpo", "maxpo"]}
    path = root / "params.yaml"
    path.write_text(path.read_text() + "".join(f"{k}: {json.dumps(v)}\n" for k, v in listed.items()))
    shutil.copy(ROOT / "tasks" / "sums_smollm2.yaml", root / "tasks" / f"{task}.yaml")
    for estimator in estimators:
        write_cell(root, task, estimator, 6, 4, STEPS, "")
    write_variance(root, task, 6, estimators)
