"""SGD, Adam and AdamW: torch's own arithmetic, by the functions that its optimiser classes call.

The classes themselves import torch's compiler at the first step, which takes two seconds of every cell's process. Adam is
torch's fused form: it takes a correctly rounded square root, the same bits on every processor, where the others take MKL's.
Also here: how the learning rate warms up.
"""

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

EPS = 1e-8
LANES = 8  # float32 numbers of an AVX2 register


class Optimiser:
    """name: sgd, adam (arXiv:1412.6980) or adamw (arXiv:1711.05101). Every parameter must have a gradient when it steps.

    lr: learning rate of the next step. state: parameter's number -> {step, exp_avg, exp_avg_sq}, what a checkpoint keeps.
    Works entry by entry, so that seeds stacked along axis 0 stay independent.
    """

    def __init__(self, name, parameters, lr, betas, weight_decay):
        self.name, self.parameters, self.lr, self.betas, self.weight_decay = name, list(parameters), lr, betas, weight_decay
        self.state = {} if name == "sgd" else {index: _start(parameter) for index, parameter in enumerate(self.parameters)}

    def zero_grad(self):
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self):
        parameters, grads = self.parameters, [parameter.grad for parameter in self.parameters]
        common = {"lr": self.lr, "weight_decay": self.weight_decay, "maximize": False}
        if self.name == "sgd":
            sgd(parameters, grads, [None] * len(grads), momentum=0.0, dampening=0.0, nesterov=False, **common)
            return
        first, second, steps = ([entries[key] for entries in self.state.values()] for key in ("exp_avg", "exp_avg_sq", "step"))
        function, (beta1, beta2) = adam if self.name == "adam" else adamw, self.betas
        options = {"fused": True, "amsgrad": False, "beta1": beta1, "beta2": beta2, "eps": EPS, **common}
        whole = [[_whole(tensor) for tensor in tensors] for tensors in (parameters, grads, first, second)]
        function(*whole, [], steps, **options)
        for tensors, stepped in ((parameters, whole[0]), (first, whole[2]), (second, whole[3])):
            for tensor, new in zip(tensors, stepped, strict=True):
                if new is not tensor:
                    tensor.copy_(new[: tensor.numel()].view_as(tensor))

    def restore(self, state):
        """Go on from a saved `state`."""
        self.state = {
            index: {name: entry if name == "step" else entry.to(self.parameters[index]) for name, entry in state[index].items()}
            for index in self.state
        }


def learning_rate(options, step):
    """The rate of a step (from 0): `lr` of a task's optimiser section, reached linearly over its `warmup_steps`."""
    warmup = options["warmup_steps"]
    return options["lr"] * min(1.0, (step + 1) / warmup if warmup else 1.0)


def _whole(tensor):
    """A tensor, or flat and with zeros at its end where it does not fill whole registers.

    What is left over there, fused Adam rounds otherwise: the last seeds' bits would depend on how many run beside them.
    """
    missing = -tensor.numel() % LANES
    return torch.nn.functional.pad(tensor.reshape(-1), (0, missing)) if missing else tensor


def _start(parameter):
    zeros = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros(()), **zeros}
