"""The `device` key; and a pretended GPU, on which a stray CPU tensor is an error as on a real one."""

import contextlib
import dataclasses

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from maxpo_bench.errors import InputError
from maxpo_bench.estimators import get
from maxpo_bench.machine import workers
from maxpo_bench.policies import causal_lm
from maxpo_bench.problems import build, language
from maxpo_bench.settings import task_file
from maxpo_bench.training import devices, warm_start
from maxpo_bench.training.checkpoints import Checkpoints
from maxpo_bench.training.loop import train

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PLACES = (torch.device, str, torch.Tensor)


class OnGpu(torch.Tensor):
    """A tensor that counts as one on a GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class PretendedGpu(TorchFunctionMode):
    """What is made of OnGpu tensors is OnGpu; an operation of CPU and OnGpu tensors raises. Counts what it judged."""

    num_judged = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), dict(kwargs or {})
        if function == torch.Tensor.device.__get__:
            return GPU if isinstance(args[0], OnGpu) else CPU
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        if name in ("__getitem__", "__setitem__"):  # indices on the CPU are taken, and a single one is read
            indices = [a for a in tree_leaves(args[1]) if isinstance(a, OnGpu) and a.dim() > 0]
            if indices and not isinstance(args[0], OnGpu):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            tensors = [args[0], *(a for a in args[2:] if isinstance(a, torch.Tensor))]
        on_gpu = any(isinstance(t, OnGpu) for t in tensors)
        mixed = on_gpu and any(not isinstance(t, OnGpu) and t.dim() > 0 for t in tensors)  # a single CPU number is taken
        if name == "numpy" and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "cpu":
            on_gpu = False
        elif name == "to":
            to = [a for a in (*args[1:], kwargs.get("device")) if isinstance(a, PLACES)]
            if to:
                on_gpu = isinstance(to[0], OnGpu) if isinstance(to[0], torch.Tensor) else torch.device(to[0]) == GPU
            args = [CPU if isinstance(a, torch.device | str) else a for a in args]
        elif name != "copy_":
            self.num_judged += on_gpu
            if mixed:
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got cuda:0 and cpu")
        if kwargs.get("device") is not None:
            on_gpu = on_gpu if name == "to" else torch.device(kwargs["device"]) == GPU
            kwargs["device"] = CPU
        kind = OnGpu if on_gpu else torch.Tensor

        def placed(value):
            right = not isinstance(value, torch.Tensor) or isinstance(value, OnGpu) == on_gpu
            return value if right else value.as_subclass(kind)

        return tree_map(placed, function(*args, **kwargs))


def move(model, device):
    """What `model.to(device)` does, tied weights included."""
    moved = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    if id(tensor) not in moved:
                        there = tensor.detach().as_subclass(OnGpu)
                        is_parameter = isinstance(tensor, torch.nn.Parameter)
                        moved[id(tensor)] = torch.nn.Parameter(there) if is_parameter else there, tensor
                    store[name] = moved[id(tensor)][0]
    return model


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """Language problems find a GPU, models move to it. No autocast: the arithmetic is the CPU's, bit for bit."""
    from transformers import PreTrainedModel

    with monkeypatch.context() as patch, PretendedGpu() as gpu:
        patch.setattr(PreTrainedModel, "to", move)
        patch.setattr(language, "find_device", lambda name, where: GPU)
        patch.setattr(language.LanguageProblem, "_precision", lambda self: contextlib.nullcontext())
        yield gpu


def small(**loss):
    task = dataclasses.replace(task_file.load("countdown3"), groups=5, group_size=8, steps=3, seeds=1)
    task.section("warm_start").update(steps=2, batch_size=16)
    task.loss.update(loss)
    task.evaluation.update(every=1, prompts=3, samples=8, curve_prompts=2, curve_samples=8)
    return task


def whole_run(task, folder):
    """Train, stop after a step, restore, go on: (curve [steps, columns], flat weights) on the CPU."""
    problem = build(task, (0,))
    problem.source.verify = lambda row, text: len(text) % 2 / (1 + len(text))  # some groups learn
    checkpoints = Checkpoints(folder, (0,))

    def stop(run):
        if run.step == 1:
            checkpoints.save(run, problem)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(task, get("maxpo"), problem, after_step=stop)
    run = checkpoints.restore(task, problem, checkpoints.load())
    run = train(task, get("maxpo"), problem, run=run)
    weights = torch.cat([tensor.flatten() for tensor in problem.policy_states(run.policy)[0].values()])
    return torch.tensor([list(row.values()) for row in run.rows]), weights.cpu()


@pytest.mark.parametrize("loss", [{}, {"clip": 0.2, "epochs": 2, "kl": 0.01, "micro_batch": 7, "max_grad_norm": 0.1}])
def test_a_run_on_a_gpu_mixes_no_devices(monkeypatch, tmp_path, loss):
    """Warm start, sampling, rewards, update, evaluation, checkpoint: the numbers of the same run on the CPU."""
    with pretended_gpu(monkeypatch) as gpu:
        found = whole_run(small(**loss), tmp_path / "gpu")
    assert gpu.num_judged > 10_000
    wanted = whole_run(small(**loss), tmp_path / "cpu")
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_scores_and_the_base_of_a_gpu_come_back_to_the_cpu(monkeypatch):
    """variance.py multiplies scores by advantages, the base stage saves weights: CPU tensors both."""
    task = small()
    with pretended_gpu(monkeypatch):
        problem = build(task, (0,))
        policy = problem.initial_policy()
        batch = problem.sample(policy, 0)

        def score_rows(model, prompt_tokens, prompt_mask, tokens, lengths, temperature):  # vmap knows no OnGpu
            rows = torch.cat([prompt_tokens * prompt_mask, tokens], dim=1).sum(1) + lengths
            return rows[:, None] * torch.ones(len(tokens), 3, device=model.device)

        monkeypatch.setattr(causal_lm, "score_rows", score_rows)
        scores = problem.scores(policy, batch)
        assert scores.shape == (1, 40, 3)
        for tensor in (scores, problem.reward(batch), problem.score_norms(batch), *warm_start.make_base(problem, 0).values()):
            assert tensor.device == CPU
        assert batch.log_probs.device == GPU and next(policy.parameters()).device == GPU


def test_the_pretended_gpu_is_as_strict_as_a_real_one():
    with PretendedGpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there * 2).device == GPU and (there + torch.tensor(1.0)).device == GPU and there.cpu().device == CPU
        assert there[torch.tensor([0])].device == GPU and here.to(there.device).device == GPU
        one = torch.tensor(1, device="cuda")
        assert (one + torch.tensor(1.0)).device == (torch.tensor(1.0) + one).device == GPU and here[one].device == CPU
        for mix in (lambda: there + here, lambda: torch.cat([there, here]), lambda: torch.where(here > 0, there, 0.0),
                    lambda: here[torch.tensor([0])] * there, lambda: there.index_select(0, torch.tensor([0])),
                    lambda: here * one, lambda: one * here, lambda: here.add_(one), lambda: torch.where(here > 0, one, 0.0),
                    lambda: here[one[None]], lambda: here[:, None][..., one[None]], lambda: here[there > 0],
                    lambda: here.__setitem__(one[None], 0.0), lambda: here.__setitem__(slice(2), there[:2])):  # fmt: skip
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_bf16_changes_little(monkeypatch):
    """The precision of a GPU, here on the CPU: weights stay float32, log-probabilities are near, all of it trains."""
    task = small()
    problem = build(task, (0,))
    policy = problem.initial_policy()
    batch = problem.sample(policy, 0)
    exact = problem.log_probs(policy, batch).detach()
    monkeypatch.setattr(problem, "_precision", lambda: torch.autocast("cpu", torch.bfloat16))
    near = problem.log_probs(policy, batch)
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.3, rtol=0.05)
    sampled = problem.sample(policy, 0)
    torch.testing.assert_close(sampled.log_probs, problem.log_probs(policy, sampled).detach(), atol=0.3, rtol=0.05)
    near.sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in policy.parameters())


def test_the_device_key(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.find_device("auto", "t.yaml") == devices.find_device("cpu", "t.yaml") == CPU
    for name in ("cuda", "cuda:1"):
        task = small()
        task.sections["device"] = name
        with pytest.raises(InputError, match=f"^countdown3.yaml: device: {name}: this machine has no such GPU") as caught:
            build(task, (0,))
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.find_device("auto", "t.yaml") == torch.device("cuda:0") and devices.find_device("cuda", "t.yaml") == GPU
    assert devices.find_device("cuda:0", "t.yaml") == torch.device("cuda:0")
    with pytest.raises(InputError, match="no such GPU"):
        devices.find_device("cuda:1", "t.yaml")


def test_seeds_go_over_the_gpus_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for slot, index in ((0, 0), (1, 1), (2, 0)):
        monkeypatch.setattr(workers, "_slot", slot)
        assert devices.find_device("auto", "t.yaml") == torch.device("cuda", index)
    task = small()
    assert [devices.num_workers(task, device) for device in (CPU, GPU)] == [None, 2]
    task.sections["device"] = "cuda"
    assert devices.num_workers(task, GPU) == 1


def test_an_unknown_device_is_said_on_load(tmp_path):
    text = task_file.find("countdown3").read_text()
    (tmp_path / "t.yaml").write_text(text + "\ndevice: gpu\n")
    with pytest.raises(InputError, match="device: unknown value 'gpu'"):
        task_file.load(str(tmp_path / "t.yaml"))
    (tmp_path / "t.yaml").write_text(text + "\ndevice: cuda:1\n")
    assert task_file.load(str(tmp_path / "t.yaml")).section("device") == "cuda:1"
