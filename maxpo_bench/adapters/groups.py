"""Groups of any sizes: a list of 1-D rewards in, a list of 1-D advantages out. What Tinker, rLLM, slime and prime-rl hand over."""

import torch

from maxpo_bench.adapters import Prepared
from maxpo_bench.errors import InputError


class Advantages(list):
    """A list of 1-D tensors. clipped: groups that were too small for k and got the largest k they allow, or zeros."""

    clipped = 0


def advantages(rewards, estimator="maxpo", k=1, *, clip_k=False, lengths=None, **options):
    """Advantages of groups that may differ in size.

    rewards     a list of 1-D tensors, arrays or lists of numbers, one for each group
    estimator   a name of the registry, or a function f(rewards [G, N], [k], [lengths]) -> advantages [G, N]
    k           must fit every group, unless clip_k: then a group that is too small gets the largest k it allows, one that allows
                none (a single sample, say) zeros, and .clipped counts them
    lengths     tokens of each completion, a list like the rewards, for estimators that use them
    options     the estimator's own
    Returns Advantages, a list of 1-D tensors on the rewards' device, in their float dtype (integers and lists: the default dtype).
    Groups of one size are one call; an estimator that reads the whole batch needs groups of one size. Raises InputError.
    """
    compute = Prepared(estimator, k, **options)
    groups = [_group(values, f"group {i}") for i, values in enumerate(_listed(rewards, "rewards"))]
    sides = (
        None
        if lengths is None
        else [_group(values, f"lengths of group {i}") for i, values in enumerate(_listed(lengths, "lengths"))]
    )
    if sides is not None and [len(one) for one in sides] != [len(one) for one in groups]:
        raise InputError("lengths must be one for each reward, in the groups of the rewards")
    by_size: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        by_size.setdefault(len(group), []).append(place)
    if compute.across_groups and len(by_size) > 1:
        raise InputError(f"{compute.name}: reads the whole batch, so groups must be of one size, got sizes {sorted(by_size)}")
    found = Advantages([None] * len(groups))
    for size, places in by_size.items():
        used, span = k, compute.span(size)
        if span:
            if not clip_k:
                raise InputError(
                    f"{compute.name}: k = {k} does not fit group {places[0]} of {size}, which allows {span}; or clip_k=True"
                )
            found.clipped += len(places)
            valid = compute.valid_k(size) if size > 1 else range(0)
            used = min(max(k, valid[0]), valid[-1]) if len(valid) else None
        batch = torch.stack([groups[place].double() for place in places])
        side = None if sides is None else torch.stack([sides[place].double() for place in places])
        values = torch.zeros_like(batch) if used is None else compute(batch, side, used)
        for place, row in zip(places, values, strict=True):
            dtype = groups[place].dtype if groups[place].is_floating_point() else torch.get_default_dtype()
            found[place] = row.to(dtype)
            if not found[place].isfinite().all():
                raise InputError(f"{compute.name}: advantages of group {place} do not fit {dtype}; hand over float32 rewards")
    return found


def _listed(values, what):
    if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
        raise InputError(f"{what} must be a list of 1-D groups, got {type(values).__name__}")
    return values


def _group(values, what):
    try:
        group = values if isinstance(values, torch.Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} must be numbers, got {values!r:.60}; leave out, or score, what has none") from None
    if group.dim() != 1 or not len(group):
        raise InputError(f"{what} must be 1-D and not empty, got shape {list(group.shape)}")
    if not group.isfinite().all():
        place = int((~group.isfinite()).nonzero()[0])
        raise InputError(f"{what} has {group[place].item()} at sample {place}; leave out, or score, what has no number")
    return group
