"""The one training loop. It does not know which task or which estimator it runs.

    sample groups -> rewards -> advantages -> update

Two cells of a task differ by the `estimator` argument and by nothing else: start, prompts, sampling noise, optimiser,
loss and evaluation are the same for all. S seeds run side by side: axis 0 of every tensor. They never touch each other,
so a seed's numbers do not depend on its neighbours.
"""

import math
import time
from collections import defaultdict
from contextlib import contextmanager

import numpy as np
import torch

from maxpo_bench.errors import BadReward, InputError
from maxpo_bench.machine import numerics
from maxpo_bench.training.evaluation import ladder, rungs
from maxpo_bench.training.optimisers import Optimiser, learning_rate

EXPLODED = 1e12  # a gradient of a larger norm is divergence, long before float32 overflows
FAR_OUT = 1e8  # and so are parameters of a larger norm


class NotApplicable(InputError):
    """The estimator refuses this task's rewards (a binary-only estimator on graded rewards, say)."""


class Clock:
    """Seconds per phase. Evaluation and checkpoints have phases of their own: they are off the training clock."""

    def __init__(self, phases=None):
        self.phases = defaultdict(float, phases or {})

    @contextmanager
    def __call__(self, phase):
        start = time.perf_counter()
        yield
        self.phases[phase] += time.perf_counter() - start


def make_optimiser(task, parameters):
    """The task's optimiser."""
    options = task.optimiser
    return Optimiser(options["name"], parameters, options["lr"], tuple(options["betas"]), options["weight_decay"])


def surrogate(log_probs, advantages, old_log_probs=None, clip=0.0):
    """Per-sample loss whose gradient is -A * score. With clip > 0 the PPO form on sample ratios (arXiv:1707.06347).

    All tensors of one shape; advantages on the mean-loss scale. Returns that shape.
    """
    if clip == 0:
        return -advantages * log_probs
    ratio = torch.exp(log_probs - old_log_probs)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def kl_penalty(log_probs, reference_log_probs):
    """Unbiased, non-negative estimate of KL(policy || reference) per sample: r - 1 - log r with r = reference / policy.

    Its value is unbiased; its gradient on fixed on-policy samples is that of KL(reference || policy), as in GRPO.

    Source: Schulman, "Approximating KL divergence" (2020), the k3 form used by GRPO (arXiv:2402.03300, eq 4).
    """
    log_ratio = reference_log_probs - log_probs
    return torch.exp(log_ratio) - 1 - log_ratio


def update(task, problem, policy, optimiser, batch, advantages, lr):
    """One optimiser step per epoch on one batch. Returns per seed 0, or infinity where it went out of bounds.

    The loss of a seed is the mean over its G*N samples; samples with advantage 0 add nothing to the gradient and are
    left out where the problem works row by row. Micro-batches add up to the same gradient.
    """
    loss_options = task.loss
    clip, kl = loss_options["clip"], loss_options["kl"]
    num_seeds, num_samples = advantages.shape[0], advantages[0].numel()
    parameters = optimiser.parameters
    parts = [_chunks(problem, policy, part, own, loss_options) for part, own in problem.parts(batch, advantages)]
    old = [[None] * len(chunks) for _, chunks in parts]
    reference = [[None] * len(chunks) for _, chunks in parts]
    with torch.no_grad():
        if clip:
            old = [[problem.log_probs(policy, part, chunk).detach() for chunk, _ in chunks] for part, chunks in parts]
        if kl:
            reference = [[problem.reference_log_probs(part, chunk) for chunk, _ in chunks] for part, chunks in parts]

    def backward(number):
        part, chunks = parts[number]
        for i, (chunk, chunk_advantages) in enumerate(chunks):
            log_probs = problem.log_probs(policy, part, chunk)
            loss = surrogate(log_probs, chunk_advantages.to(log_probs), old[number][i], clip)
            if kl:
                loss = loss + kl * kl_penalty(log_probs, reference[number][i])
            (loss.sum() / num_samples).backward()

    def gradients():
        for number in range(len(parts)):
            optimiser.zero_grad()
            backward(number)
            yield torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])

    health = torch.zeros(num_seeds, dtype=torch.float64)
    optimiser.lr = lr
    for _ in range(loss_options["epochs"]):
        if problem.shards is None:
            optimiser.zero_grad()
            backward(0)
        else:
            total = problem.shards.add(gradients())
            for parameter, own in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = own.reshape(parameter.shape).clone()
        for parameter in parameters:
            if parameter.grad is None:  # no row had an advantage: still a step, as with a zero gradient
                parameter.grad = torch.zeros_like(parameter)
        health += _guard_gradients(parameters, num_seeds, loss_options["max_grad_norm"])
        optimiser.step()
        health += _guard_parameters(parameters, num_seeds)
    return health.tolist()


def _chunks(problem, policy, batch, advantages, loss_options):
    """(batch, [(rows or None, their advantages)]): what goes through the model at once."""
    if not problem.row_wise:
        return batch, [(None, advantages)]
    flat = advantages.reshape(-1)
    rows = torch.arange(flat.numel()) if loss_options["kl"] else flat.nonzero().squeeze(-1)
    size = loss_options["micro_batch"]
    chunks = rows.split(size) if size else problem.micro_batches(policy, batch, rows)
    return batch, [(chunk, flat[chunk]) for chunk in chunks if chunk.numel()]


def _guard_gradients(parameters, num_seeds, max_norm):
    """Zero a seed's gradient when it is not finite; clip per seed when asked. Returns infinity per broken seed."""
    squares = _squares([parameter.grad for parameter in parameters], num_seeds)
    broken = ~(squares < EXPLODED**2)
    scale = torch.ones(num_seeds, dtype=torch.float64)
    if max_norm:
        scale = (max_norm / numerics.sqrt(squares)).clamp(max=1.0)
    if max_norm or broken.any():
        for parameter in parameters:
            shape = (num_seeds,) + (1,) * (parameter.dim() - 1) if num_seeds > 1 else (1,) * parameter.dim()
            zero = broken.to(parameter.device).reshape(shape)
            parameter.grad = torch.where(zero, 0.0, parameter.grad * scale.to(parameter.grad).reshape(shape))
    return torch.where(broken, torch.inf, 0.0).double()


@torch.no_grad()
def _guard_parameters(parameters, num_seeds):
    """Zero a seed's policy that a step threw out of bounds: nothing can be sampled from it. Returns infinity for it."""
    broken = ~(_squares(parameters, num_seeds) < FAR_OUT**2)
    if broken.any():
        for parameter in parameters:
            shape = (num_seeds,) + (1,) * (parameter.dim() - 1) if num_seeds > 1 else (1,) * parameter.dim()
            parameter.masked_fill_(broken.to(parameter.device).reshape(shape), 0.0)
    return torch.where(broken, torch.inf, 0.0).double()


def _squares(tensors, num_seeds):
    """Squared norm over all tensors, one per seed: [S] float64. Every tensor has the seeds as axis 0 when S > 1."""
    squares = torch.zeros(num_seeds, dtype=torch.float64)
    for tensor in tensors:
        squares += tensor.detach().reshape(num_seeds, -1).double().square().sum(dim=1).cpu()
    return squares


def evaluate(task, problem, policy, step, full):
    """Evaluate on held-out prompts or start states. Returns (rows: one dict per seed, ladders: one dict per seed).

    full: the first and last evaluation, with evaluation.prompts x samples; the ones between may use fewer.
    """
    options = task.evaluation
    prompts = options["prompts"] if full else options["curve_prompts"] or options["prompts"]
    samples = options["samples"] if full else options["curve_samples"] or options["samples"]
    result = problem.evaluate(policy, step, prompts, samples)
    if not np.isfinite(np.asarray(result.rewards)).all():
        raise BadReward(f"task {task.name}: evaluation at step {step}: a reward is not a finite number")
    ks = sorted({*rungs(options["samples"]), 1, task.k}) if full else sorted({1, task.k})
    passes, maxima = ladder(result.rewards, task.success, ks)
    with torch.no_grad():
        exact = problem.exact(policy, [1, task.k])
    rows, ladders = [], []
    for s, seed in enumerate(problem.seeds):
        row = {
            "seed": seed,
            "step": step,
            "samples": step * task.groups * task.group_size,
            "mean_reward": float(result.rewards[s].mean()),
            "pass_at_1": float(passes[1][s]),
            "pass_at_k": float(passes[task.k][s]),
            "max_at_k": float(maxima[task.k][s]),
        }
        if exact is not None:
            row["exact_mean_reward"], row["exact_max_at_k"] = (float(value) for value in exact[s])
        row.update({name: float(values[s]) for name, values in result.extras.items()})
        rows.append(row)
        ladders.append({k: {"pass": float(passes[k][s]), "max": float(maxima[k][s])} for k in ks})
    return rows, ladders


def evaluation_steps(task):
    """Steps after which the policy is evaluated: every `evaluation.every`, and the last."""
    every = task.evaluation["every"]
    return sorted({*(range(every, task.steps, every) if every else ()), task.steps})


class Run:
    """The state of a training run: everything that must survive an interruption, and nothing else.

    Random numbers are not part of it: streams are keyed by step.
    """

    def __init__(self, task, problem, start_states):
        self.step = 0
        self.rows, self.ladders = [], []
        self.diverged = {}  # seed -> reason
        self.policy = problem.initial_policy()
        if start_states is not None:
            problem.load_states(self.policy, start_states)
        self.optimiser = make_optimiser(task, [p for p in self.policy.parameters() if p.requires_grad])
        self.states = {}  # kept policies: initial, middle, final -> one state dict per seed
        self.keep("initial", problem)
        self.clock = Clock()

    def keep(self, when, problem):
        if problem.saves_states:
            self.states[when] = problem.policy_states(self.policy)


def train(task, estimator, problem, start_states=None, run=None, after_step=lambda run: None):
    """Train all seeds of `problem` under `estimator`. Returns the finished Run.

    start_states: one state dict per seed (results/base/<task>); None: the problem's own initial policy.
    run: a Run to continue; after_step(run) is called after each step (checkpoints, progress).
    Raises NotApplicable when the estimator refuses the rewards, BadReward when rewards are not finite.
    """
    run = run or Run(task, problem, start_states)
    clock, policy, seeds = run.clock, run.policy, problem.seeds
    evaluate_after = set(evaluation_steps(task))
    while run.step < task.steps:
        step = run.step
        with clock("sample"), torch.no_grad():
            batch = problem.sample(policy, step)
        with clock("reward"):
            rewards = problem.reward(batch)
            if not bool(torch.isfinite(rewards).all()):
                s, g, i = (~torch.isfinite(rewards)).nonzero()[0].tolist()
                raise BadReward(f"seed {seeds[s]}, step {step}, group {g}, sample {i}: reward is {rewards[s, g, i].item()}")
        with clock("advantage"):
            side = {name: getattr(problem, name)(batch) for name in estimator.side}
            if side.get("score_norms") is not None:  # a policy that is falling apart is no refusal of the rewards
                side["score_norms"] = torch.nan_to_num(side["score_norms"], nan=1.0, posinf=1.0)
            try:
                advantages = estimator(rewards, k=task.k, **side)
            except InputError as error:
                raise NotApplicable(str(error)) from None
        with clock("update"):
            lr = learning_rate(task.optimiser, step)
            health = update(task, problem, policy, run.optimiser, batch, advantages, lr)
        for seed, value in zip(seeds, health, strict=True):
            if not math.isfinite(value):
                what = f"seed {seed}: gradient or policy not finite, or out of bounds, at step {step}"
                run.diverged.setdefault(seed, what)
        run.step = step + 1
        if run.step == max(1, task.steps // 2):
            run.keep("middle", problem)
        if run.step in evaluate_after:
            last = run.step == task.steps
            with clock("evaluate"), torch.no_grad():
                rows, ladders = evaluate(task, problem, policy, run.step, full=last)
            run.rows += [row for row in rows if row["seed"] not in run.diverged]
            if last:
                run.ladders = ladders
                run.keep("final", problem)
        after_step(run)
    return run
