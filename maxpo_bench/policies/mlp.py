"""Small tanh networks for vector observations, every seed side by side: batched matrix products, no loop over seeds."""

import math

import numpy as np
import torch
from torch import nn

NARROW = 16  # columns; the library's batched product of fewer is two to five times slower than of this many


class MLPPolicy(nn.Module):
    """S independent networks; weights [S, in, out], biases [S, 1, out], float32.

    Discrete actions: a softmax over the outputs. Several at once: a softmax each, side by side; heads has their sizes.
    Continuous ones: a diagonal Gaussian whose means are the outputs and whose log_std [S, 1, A] does not depend on the
    observation.
    """

    def __init__(self, weights, biases, log_std=None, heads=None):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.as_tensor(w, dtype=torch.float32)) for w in weights])
        self.biases = nn.ParameterList([nn.Parameter(torch.as_tensor(b, dtype=torch.float32)) for b in biases])
        self.log_std = None if log_std is None else nn.Parameter(torch.as_tensor(log_std, dtype=torch.float32))
        self.num_outputs = self.weights[-1].shape[2]
        self.heads = heads

    @classmethod
    def draw(cls, generators, sizes, log_std=None, heads=None):
        """One network per generator. sizes: [in, hidden..., out]. Uniform in +-1/sqrt(in), a tenth in the last."""
        weights = []
        for layer, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            scale = (0.1 if layer == len(sizes) - 2 else 1.0) / math.sqrt(fan_in)
            weights.append(np.stack([g.uniform(-scale, scale, size=(fan_in, fan_out)) for g in generators]))
        biases = [np.zeros((len(generators), 1, fan_out)) for fan_out in sizes[1:]]
        spread = None if log_std is None else np.full((len(generators), 1, sizes[-1]), log_std)
        return cls(weights, biases, spread, heads)

    def layers(self):
        """[(weight, bias)]: ask once and hand it to forward when stepping, because a ParameterList is slow to read.

        The last one is padded with zeros to NARROW columns. Besides being faster, this keeps a single output off the
        library's path for vectors, on which a seed's bits would depend on whether it runs alone.
        """
        *layers, (weight, bias) = zip(self.weights, self.biases, strict=True)
        missing = max(0, NARROW - self.num_outputs)
        return [*layers, (nn.functional.pad(weight, (0, missing)), nn.functional.pad(bias, (0, missing)))]

    def activations(self, x, layers=None):
        """x: [S, B, in] -> the inputs of every layer, then the outputs [S, B, out]."""
        layers = layers or self.layers()
        values = [x]
        for weight, bias in layers[:-1]:
            values.append(torch.baddbmm(bias, values[-1], weight).tanh())
        weight, bias = layers[-1]
        values.append(torch.baddbmm(bias, values[-1], weight)[..., : self.num_outputs])
        return values

    def forward(self, x, layers=None):
        return self.activations(x, layers)[-1]

    def act(self, outputs, noise, out=None):
        """Actions by inverse CDF of uniform noise, [S, B] -> [S, B] long; from normal noise, [S, B, A] -> [S, B, A].

        With heads: [S, B, H] -> [S, B, H] long. out: a tensor to write them into.
        """
        if self.log_std is not None:
            return torch.add(outputs, self.log_std.exp() * noise, out=out)
        if self.heads is not None:
            out = torch.empty(noise.shape, dtype=torch.int64) if out is None else out
            for h, part in enumerate(outputs.split(self.heads, dim=-1)):
                cdf = part.softmax(dim=-1).cumsum(dim=-1)[..., :-1]
                out[..., h] = (noise[..., h, None] >= cdf).sum(-1)
            return out
        cdf = by_action(outputs).softmax(dim=1).cumsum(dim=1)[:, :-1]
        return torch.sum(noise.unsqueeze(1) >= cdf, dim=1, out=out)

    def log_prob(self, outputs, actions):
        """Log-probability of the actions: outputs [S, B, out] -> [S, B], differentiable."""
        if self.heads is not None:
            parts = zip(outputs.split(self.heads, dim=-1), actions.split(1, dim=-1), strict=True)
            return sum(part.log_softmax(dim=-1).gather(-1, action).squeeze(-1) for part, action in parts)
        if self.log_std is None:
            return by_action(outputs).log_softmax(dim=1).gather(1, actions.unsqueeze(1)).squeeze(1)
        z = (actions - outputs) * torch.exp(-self.log_std)
        return (-0.5 * z * z - self.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def step_scores(self, x, actions):
        """Gradient of each step's log_prob in all parameters, in the order of parameters(): [S, B, D].

        Backpropagation by hand, because autograd gives only the sum over steps.
        """
        *inputs, outputs = self.activations(x)
        delta, spread = output_scores(outputs, actions, self.log_std, self.heads)
        weights, biases = [], []
        for i in reversed(range(len(self.weights))):
            weights.insert(0, (inputs[i].unsqueeze(-1) * delta.unsqueeze(-2)).flatten(2))  # [S, B, in * out]
            biases.insert(0, delta)
            delta = torch.bmm(delta, self.weights[i].transpose(1, 2)) * (1 - inputs[i] ** 2)
        own = [] if spread is None else [spread]  # a module lists its own parameters before its lists
        return torch.cat([*own, *weights, *biases], dim=-1)


def by_action(outputs):
    """[S, B, A] -> [S, A, B]: a softmax over a few actions is vectorised along the rows, not along the actions."""
    return outputs.transpose(1, 2).contiguous()


def output_scores(outputs, actions, log_std=None, heads=None):
    """Gradient of log_prob in the outputs, [S, B, out]; and in log_std, [S, B, out], None for discrete actions."""
    if heads is not None:
        parts = zip(outputs.split(heads, dim=-1), actions.unbind(-1), strict=True)
        return torch.cat([output_scores(part, action)[0] for part, action in parts], dim=-1), None
    if log_std is None:
        return nn.functional.one_hot(actions, outputs.shape[-1]).float() - outputs.softmax(dim=-1), None
    z = (actions - outputs) * torch.exp(-log_std)
    return z * torch.exp(-log_std), z * z - 1
