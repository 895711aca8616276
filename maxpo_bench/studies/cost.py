"""What an estimator costs: time and peak memory against the group size, beside the forms nobody should run."""

import itertools
import math
import time

TITLE = "Cost of the estimators"
CAPTION = (
    "CPU time per group on one thread and peak extra memory relative to the input, against the group size N, at K = 4 "
    "(best_gap: K = N); batches of M = 2^16 / N groups (one group for the two slow forms), float64, 8 draws with seeds of "
    "their own, the least time of up to 20 calls: a bound, so it has no interval. `l2o_quadratic` is the O(N^2) form in "
    "which the leave-two-out baseline is defined, `subset_brute_force` visits all C(N, K) subsets; both give maxpo's "
    "advantages. Times differ between machines and runs; the slopes hardly do."
)
K = 4
SIZES = tuple(2**j for j in range(4, 15, 2))
SLOW_SIZES = {"l2o_quadratic": SIZES[:4], "subset_brute_force": (8, 16, 32)}  # one call stays below 100 MB
TOTAL = 2**16  # rewards in one timed batch


def l2o_quadratic(rewards, k):
    """MaxPO as the paper defines it: the mean over j of D_j recomputed in the group without i. O(N^2) time and memory.

    rewards: [..., N] float64, k in 2..N-1. Returns [..., N]: equals maxpo.
    """
    import torch

    from maxpo_bench.estimators.order_statistics import added_value, added_weights

    n = rewards.shape[-1]
    ordered, index = rewards.sort(-1)
    others = torch.arange(n - 1).expand(n, n - 1)
    others = others + (others >= torch.arange(n)[:, None])  # row i: every rank but i
    left = ordered[..., others]  # [..., N, N-1], sorted
    steps = torch.zeros_like(left)
    torch.sub(left[..., 1:], left[..., :-1], out=steps[..., 1:])
    baseline = steps.mul_(added_weights(n - 1, k)).cumsum_(-1).mean(-1)  # mean over j of D_j without i
    baseline = torch.empty_like(rewards).scatter_(-1, index, baseline)
    return k * (added_value(rewards, k) - baseline)


def subset_brute_force(rewards, k):
    """maxpo = k (q_i - v_-i) by visiting all C(N, k) subsets. rewards: [..., N]. Returns [..., N]."""
    import torch

    n = rewards.shape[-1]
    subsets = torch.tensor(list(itertools.combinations(range(n), k)))  # [C, k]; torch.combinations needs n^k memory
    best = rewards[..., subsets].amax(-1)  # [..., C]
    flat = subsets.flatten().expand(*rewards.shape[:-1], -1)
    inside = torch.zeros_like(rewards).scatter_add_(-1, flat, best.repeat_interleave(k, dim=-1))
    include = inside / math.comb(n - 1, k - 1)
    return k * (include - (best.sum(-1, keepdim=True) - inside) / math.comb(n - 1, k))


def contenders():
    """{name: function(rewards, k)} of everything the study measures."""
    from maxpo_bench.estimators import get, names

    return {name: get(name) for name in names()} | {f.__name__: f for f in (l2o_quadratic, subset_brute_force)}


def peak_memory(function):
    """The most bytes of tensors alive at once that calling function() allocates (CPU allocator events)."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    del result
    return max(itertools.accumulate(changes, initial=0))


def best_time(function, batches, budget=0.08, most=20):
    """CPU seconds of the fastest of up to `most` calls of function(batch) within about `budget` s, after a warm-up.

    The batches take turns, so that a branch predictor does not learn to sort them. CPU time of this thread, because on
    a busy machine every call longer than a time slice is interrupted and its wall time doubles.
    """
    function(batches[-1])
    fastest, start = math.inf, time.thread_time()
    for turn in range(most):
        batch = batches[turn % len(batches)]
        before = time.thread_time()
        function(batch)
        now = time.thread_time()
        fastest = min(fastest, now - before)
        if now - start > budget:
            break
    return fastest


def draw(name, num_groups, n, seed=0):
    """Rewards in the domain of the contender: [num_groups, n] float64, uniform on [0, 1] or binary."""
    import torch

    from maxpo_bench.estimators import get, names

    rewards = torch.rand(num_groups, n, generator=torch.Generator().manual_seed(n + seed), dtype=torch.float64)
    return (rewards < 0.3).double() if name in names() and get(name).rewards == "binary" else rewards


def measure(name, function, n, total=TOTAL):
    """One row: time per group and peak memory of function at group size n, on a batch of `total` rewards."""
    num_groups = 1 if name in SLOW_SIZES else max(1, total // n)
    batches = [draw(name, num_groups, n, seed) for seed in range(8)]
    k = K if not hasattr(function, "valid_k") or K in function.valid_k(n) else n
    return {
        "estimator": name,
        "group_size": n,
        "num_groups": num_groups,
        "k": k,
        "time_us_per_group": best_time(lambda rewards: function(rewards, k=k), batches) / num_groups * 1e6,
        "peak_memory_per_input": peak_memory(lambda: function(batches[0], k=k)) / batches[0].nbytes,
    }


def run():
    """Rows estimator, group_size, num_groups, k, time_us_per_group, peak_memory_per_input. About 10 s, one thread.

    The memory repeats from run to run, the times do not.
    """
    import pandas as pd
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pd.DataFrame(
            [measure(name, function, n) for name, function in contenders().items() for n in SLOW_SIZES.get(name, SIZES)]
        )
    finally:
        torch.set_num_threads(threads)


def figure(data):
    """Time per group and peak memory against N, log-log; maxpo, its rivals of the same cost, and the slow forms."""
    from maxpo_bench.studies.style import line_style, new_figure

    fig, (left, right) = new_figure("full", 3.4, cols=2)
    shown = [
        name for name in data["estimator"].unique() if name in ("maxpo", "pkpo", "rloo", "grpo", "tailrl", "rs_grpo", *SLOW_SIZES)
    ]
    for name in shown:
        rows = data[data["estimator"] == name]
        for ax, column in ((left, "time_us_per_group"), (right, "peak_memory_per_input")):
            ax.plot(rows["group_size"], rows[column], label=name, **line_style(name, shown))
    for ax, label in ((left, "time per group [µs]"), (right, "peak extra memory [inputs]")):
        ax.set(xscale="log", yscale="log", xlabel="group size N [samples]", ylabel=label)
        ax.set_xscale("log", base=2)
    right.axhline(10, color="#6B6B6B", linestyle="--", linewidth=0.8)
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig
