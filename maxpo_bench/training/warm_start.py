"""The supervised warm start: the base policy a language task's estimators all start from."""

import math

from torch.nn import functional as F

from maxpo_bench.training import streams
from maxpo_bench.training.optimisers import Optimiser


def make_base(problem, seed):
    """Train the base policy of one seed: fresh demonstrations, next-token loss on the completion alone.

    problem: a language problem of that seed. Returns a state dict of float32 CPU tensors. The same bytes on every run of one
    thread. Initial weights and demonstrations both depend on the seed.
    """
    settings = problem.task.section("warm_start")
    policy = problem.untrained_policy()
    if settings.get("steps", 0) > 0:
        train(policy, problem, settings, seed)
    states = problem.policy_states(policy)[0]
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in states.items()}


def train(policy, problem, settings, seed):
    """AdamW with linear warm-up and cosine decay, in place. Returns the loss of every step, nats per token."""
    optimiser = Optimiser("adamw", policy.parameters(), settings["lr"], settings["betas"], weight_decay=0.01)
    losses = []
    for step in range(settings["steps"]):
        rng = streams.generator(problem.task.name, seed, "warm-start", step)
        pairs = problem.source.demonstrations(rng, settings["batch_size"])
        tokens, targets = problem.encode_pairs(pairs)  # [B, T] both; targets -100 on the prompt and the padding
        logits = policy(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
        warmup = min(1.0, (step + 1) / max(1, settings["warmup_steps"]))
        optimiser.lr = settings["lr"] * warmup * 0.5 * (1 + math.cos(math.pi * step / settings["steps"]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
