"""What can be sampled. One file per kind of problem; a task file's `kind` names the file (or path.py:Class).

A problem draws groups of samples from a policy, gives each a reward, and knows the log-probabilities to push on. The
training loop (maxpo_bench/training/loop.py) sees nothing else of it.
"""

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from maxpo_bench.errors import InputError


@dataclass
class Evaluation:
    """What an evaluation on held-out prompts or start states gave."""

    rewards: object
    """array [S, P, n] float64: S seeds, P prompts, n samples each."""
    extras: dict = field(default_factory=dict)
    """name -> list of S floats, further columns of curve.csv (entropy, distinct-answer rate, ...)."""


class Problem:
    """Base class. S = len(seeds) runs side by side, G groups per step, N samples per group.

    Same bytes for a seed whatever other seeds run beside it: noise comes from streams.generator per seed.
    """

    row_wise = False
    """True: log_probs is asked for chosen rows, so that rows with advantage 0 cost nothing (language models)."""

    saves_states = True
    """False: the initial policy is somebody else's to store (a hub's model of gigabytes), no checkpoints are kept."""

    highest_reward = None
    """What no sample can earn more than; None where that is not known."""

    def __init__(self, task, seeds, base=None):
        """base: folder of the base policy (results/base/<task>), for problems that are warm-started."""
        self.task, self.seeds, self.base = task, tuple(seeds), base
        self.verifier_errors = 0  # samples whose reward could not be computed; counted, never silently 0

    shards = None
    """training.shards.Shards where a seed's groups are worked on shard by shard; None: all at once."""

    max_workers = None
    """Processes that may run at once; None: one per core."""

    def prepare(self):
        """Called once, before the seeds are forked into workers and before any old result is touched: import what sampling
        and training will need, and refuse (InputError) data that cannot be used."""

    def self_check(self):
        """Called once by the base stage, in a worker, before any old result is touched: InputError when a policy of this task
        would give wrong numbers."""

    def initial_policy(self):
        """The policy every estimator starts from: an nn.Module whose parameters have a leading axis S."""
        raise NotImplementedError

    def policy_states(self, policy):
        """One state dict per seed, without the leading axis."""
        state = policy.state_dict()
        return [{name: tensor[s].detach().clone() for name, tensor in state.items()} for s in range(len(self.seeds))]

    def load_states(self, policy, states):
        """The inverse of policy_states."""
        import torch

        policy.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})

    def sample(self, policy, step, purpose="train", groups=None, group_size=None):
        """Draw G groups of N samples per seed, without gradient. Returns a batch, known to this problem alone."""
        raise NotImplementedError

    def reward(self, batch):
        """Outcome of each sample: tensor [S, G, N] float64."""
        raise NotImplementedError

    def log_probs(self, policy, batch, rows=None):
        """Log-probability of each sample, differentiable: [S, G, N]; of rows of the flattened S*G*N: [len(rows)]."""
        raise NotImplementedError

    def micro_batches(self, policy, batch, rows):
        """`rows` of the flattened S*G*N in the parts that one forward and backward takes at once (row_wise alone)."""
        return [rows]

    def parts(self, batch, advantages):
        """[(batch, its advantages)]: what this process takes gradients of, one after another."""
        return [(batch, advantages)]

    def reference_log_probs(self, batch, rows=None):
        """The same under the base policy, for a KL term; only problems with a base policy have it."""
        raise InputError(f"task {self.task.name}: loss.kl: kind {self.task.kind} has no base policy to stay close to")

    def score_norms(self, batch):
        """Squared logit-space score norm of each sample, [S, G, N]; None when unknown."""
        return None

    def lengths(self, batch):
        """Tokens of each completion, or steps of each episode, [S, G, N]; None when all are the same."""
        return None

    def scores(self, policy, batch):
        """Gradient of each sample's log-probability by all parameters: [S, G*N, D] (variance.py)."""
        raise NotImplementedError

    def evaluate(self, policy, step, prompts, samples):
        """Draw `samples` samples for each of `prompts` held-out prompts or start states. Returns an Evaluation."""
        raise NotImplementedError

    def exact(self, policy, ks):
        """Exact J_k for each k: differentiable [S, len(ks)]; None where there is no exact reference."""
        return None

    def exact_gradient(self, policy, weights):
        """Exact gradient of sum_k weights[k] J_k, [S, D] in the order of scores; None without an exact reference."""
        return None


def build(task, seeds, base=None):
    """The problem of a task, for the given seeds.

    InputError when the kind is unknown, its extra is not installed, or no sample can ever be a success.
    """
    problem = _problem_class(task)(task, seeds, base)
    most = problem.highest_reward
    if most is not None and task.success > most + 1e-9:
        raise InputError(
            f"{task.path.parent.name}/{task.path.name}: score.success: {task.success:g} can never be reached, a sample is worth "
            f"at most {most:g}; say from which reward it passes"
        )
    return problem


def _problem_class(task):
    if ".py:" in task.kind:
        file, class_name = task.kind.split(":")
        path = task.path.parent / file
        spec = importlib.util.spec_from_file_location(f"maxpo_bench_task_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, class_name):
            raise InputError(f"{task.path.name}: kind: {file} has no class {class_name}")
        return getattr(module, class_name)
    here = Path(__file__).parent
    if (here / "prompts" / f"{task.kind}.py").is_file():  # a source of prompts for a language model
        module = importlib.import_module("maxpo_bench.problems.language")
    else:
        module = importlib.import_module(f"maxpo_bench.problems.{task.kind}")
    return module.PROBLEM
