"""Any f(rewards [..., N], k) in the shapes of the two trainers."""

from collections import defaultdict

import torch


def in_groups(function):
    return function


def in_trl(function):
    def flat(rewards, num_generations, k=1, lengths=None, score_norms=None):
        side = {} if lengths is None else {"lengths": lengths.view(-1, num_generations)}
        side |= {} if score_norms is None else {"score_norms": score_norms.view(-1, num_generations)}
        return function(rewards.view(-1, num_generations), k=k, **known(function, side)).flatten()

    return flat


def in_verl(function):
    def outcome_advantage(token_level_rewards, response_mask, index, old_log_probs, sum_pi_squared, k=1):
        scores = token_level_rewards.sum(-1)
        rows = defaultdict(list)
        for row, name in enumerate(index):
            rows[name].append(row)
        order = torch.tensor(list(rows.values()))  # [groups, N]
        norms = ((1 - 2 * old_log_probs.exp() + sum_pi_squared) * response_mask).sum(-1)
        side = known(function, {"lengths": response_mask.sum(-1)[order], "score_norms": norms[order]})
        result = function(scores[order], k=k, **side)
        advantages = torch.empty(scores.shape, dtype=torch.float64 if scores.dtype == torch.float64 else torch.float32)
        advantages[order] = result.to(advantages.dtype)
        advantages = advantages[:, None] * response_mask
        return advantages, advantages

    return outcome_advantage


def known(function, side):
    return {name: values for name, values in side.items() if name in getattr(function, "side", ())}


WRAPPERS = {"groups": in_groups, "trl": in_trl, "verl": in_verl}
