"""The suite's optimisers against the classes of torch.optim: the same bits, also when they go on from a saved state."""

import pytest
import torch

from maxpo_bench.training.optimisers import Optimiser

KINDS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_bits_as_torch(name, weight_decay, dtype):
    noise = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=noise, dtype=dtype) for shape in ((3, 5, 8), (16,))]
    ours, theirs = ([torch.nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    betas = {} if name == "sgd" else {"betas": (0.8, 0.97), "fused": True}
    reference = KINDS[name](theirs, lr=1.0, weight_decay=weight_decay, **betas)
    optimiser = Optimiser(name, ours, 1.0, (0.8, 0.97), weight_decay)
    for step in range(30):
        optimiser.lr = reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=noise, dtype=dtype)
            other.grad = mine.grad.clone()
        optimiser.step()
        reference.step()
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
        if step == 10:
            state, optimiser = optimiser.state, Optimiser(name, ours, 1.0, (0.8, 0.97), weight_decay)
            optimiser.restore(state)
    optimiser.zero_grad()
    assert not any(mine.grad.any() for mine in ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (5, 7), (2, 50)])
def test_a_seed_does_not_depend_on_its_neighbours(name, shape, dtype):
    """Whatever is left over of a register: torch's fused Adam rounds it otherwise."""
    noise = torch.Generator().manual_seed(0)
    grads = torch.randn(40, 9, *shape, generator=noise, dtype=dtype)

    def trained(seeds):
        parameter = torch.nn.Parameter(torch.zeros(len(seeds), *shape, dtype=dtype))
        optimiser = Optimiser(name, [parameter], 0.01, (0.9, 0.999), 0.01)
        for step in range(len(grads)):
            parameter.grad = grads[step, seeds].clone()
            optimiser.step()
        return parameter.detach()

    together = trained(list(range(9)))
    for size in range(1, 9):
        for first in (0, 9 - size):
            assert torch.equal(trained(list(range(first, first + size))), together[first : first + size])
