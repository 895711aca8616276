"""Softmax policies over a table of logits: one row per state, every seed side by side. A bandit has one state."""

import torch
from torch import nn


class TabularPolicy(nn.Module):
    """logits: [S, nS, nA] float64, S seeds. Starts uniform unless told."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float64))

    def log_probs(self):
        """Log-probability of every action in every state, [S, nS, nA], differentiable."""
        return self.logits.log_softmax(dim=-1)


def entropy(log_probs):
    """Mean over the states of the policy's entropy in nats: log_probs [S, nS, nA] -> list of S floats."""
    return (-(log_probs.exp() * log_probs).sum(-1).mean(-1)).tolist()


def table_score_norms(log_probs):
    """Squared norm of onehot(a) - pi(.|s), for every state and action: [..., nA] -> [..., nA]."""
    probs = log_probs.exp()
    return 1 - 2 * probs + (probs * probs).sum(-1, keepdim=True)


def table_scores(log_probs, counts):
    """Score of each episode in the logits: visits of (state, action) minus what the policy expects there.

    log_probs: [S, nS, nA]; counts: [S, B, nS, nA], visits per episode. Returns [S, B, nS * nA].
    """
    expected = counts.sum(-1, keepdim=True) * log_probs.exp().unsqueeze(1)
    return (counts - expected).flatten(2)
