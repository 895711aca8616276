"""The adapter through verl's own dispatcher, registered both ways; and on a command line of verl's own configuration."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from maxpo_bench.adapters.groups import advantages

pytest.importorskip("verl", reason="needs verl: see .ci/peers")
pytestmark = pytest.mark.peers

ROOT = Path(__file__).resolve().parents[2]
REWARDS = [[0.0, 1.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.25], [0.5, 0.5, 0.0, 1.0]]
DISPATCH = """
import json, sys
import numpy as np
import torch
import verl
from omegaconf import OmegaConf
from verl.trainer.ppo.ray_trainer import compute_advantage

groups, name, k = json.loads(sys.argv[1])
rows = [(prompt, i, value) for prompt, group in enumerate(groups) for i, value in enumerate(group)]
rows = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]  # prompts interleaved
lengths = torch.tensor([1 + (3 * prompt + i) % 4 for prompt, i, _ in rows])
mask = (torch.arange(4) < lengths[:, None]).long()
tokens = torch.zeros(len(rows), 4).scatter_(1, lengths[:, None] - 1, torch.tensor([[value] for *_, value in rows]))
data = verl.DataProto.from_dict(
    tensors={"token_level_rewards": tokens, "response_mask": mask},
    non_tensors={"uid": np.array([f"prompt-{prompt}" for prompt, *_ in rows], dtype=object)},
)
config = OmegaConf.create({"maxpo_bench": {"k": k}} if k else {})
data = compute_advantage(data, adv_estimator=name, config=config)
found = data.batch["advantages"]
assert torch.equal(found * mask, found) and torch.equal(found, data.batch["returns"])
print(json.dumps([[prompt, i, found[row, 0].item()] for row, (prompt, i, _) in enumerate(rows)]))
"""


def dispatched(name, k=0, path=(), **environment):
    """Advantages by group, from verl's compute_advantage in a process of its own."""
    hidden = ("VERL_USE_EXTERNAL_MODULES", "VERL_USE_EXTERNAL_PLUGINS")
    given = {key: value for key, value in os.environ.items() if key not in hidden} | environment
    given["PYTHONPATH"] = os.pathsep.join(map(str, [ROOT, *path]))
    command = [sys.executable, "-c", DISPATCH, json.dumps([REWARDS, name, k])]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    values = {(prompt, i): value for prompt, i, value in json.loads(done.stdout.splitlines()[-1])}
    return [torch.tensor([values[prompt, i] for i in range(len(group))]) for prompt, group in enumerate(REWARDS)]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A folder with the entry points of pyproject.toml, as an installed package has them."""
    folder = tmp_path_factory.mktemp("site")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    info = folder / "maxpo_bench_points-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: maxpo_bench_points\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[verl.plugins]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()))
    return folder


def assert_close(found, wanted, tolerance=1e-6):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_by_entry_point(plugin):
    assert_close(dispatched("maxpo_bench.maxpo", 2, [plugin]), advantages(REWARDS, "maxpo", 2))


def test_by_external_module_and_rloo_is_verl_s():
    external = {"VERL_USE_EXTERNAL_MODULES": "maxpo_bench.adapters.verl", "VERL_USE_EXTERNAL_PLUGINS": "none"}
    ours = dispatched("maxpo_bench.rloo", **external)
    assert_close(ours, advantages(REWARDS, "rloo"))
    assert_close(ours, dispatched("rloo", VERL_USE_EXTERNAL_PLUGINS="none"), 1e-5)


def test_every_estimator_is_registered_and_answers():
    import numpy as np
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    import maxpo_bench.adapters.verl  # noqa: F401
    from maxpo_bench.estimators import get, names

    tokens = torch.tensor([[0.0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [1, 0], [0, 0], [1, 0]])
    uids = np.array(list("aabbabba"), dtype=object)
    for name in names():
        k = get(name).valid_k(4)[0]
        found, _ = get_adv_estimator_fn(f"maxpo_bench.{name}")(
            token_level_rewards=tokens, response_mask=torch.tensor([[1, 0]] * 8), index=uids, config={"maxpo_bench": {"k": k}}
        )
        assert found.shape == tokens.shape and found.isfinite().all() and not found[:, 1].any(), name


def test_the_words_of_the_documentation_on_verl_s_own_command_line():
    """Composed by hydra from verl's configuration, and read back as verl's trainer hands it over."""
    hydra = pytest.importorskip("hydra")
    from omegaconf import OmegaConf

    words = "algorithm.adv_estimator=maxpo_bench.maxpo +algorithm.maxpo_bench.k=4 actor_rollout_ref.rollout.n=16"
    assert words in (ROOT / "docs" / "trainers.md").read_text()
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra.compose("ppo_trainer", overrides=words.split())
    assert config.algorithm.adv_estimator == "maxpo_bench.maxpo"
    assert OmegaConf.to_container(config.algorithm.get("maxpo_bench")) == {"k": 4}
