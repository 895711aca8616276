"""What the parameters of a foreign advantage function mean, read from their names; what is not clear is asked for."""

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

from maxpo_bench.errors import InputError, did_you_mean

CONVENTIONS = ("groups", "trl", "verl")
WORDS = {  # role of a parameter: the names it has in public code
    "k": ("k", "K", "pass_k", "passk", "pass_at_k", "max_k", "max_at_k", "best_k", "best_of_k"),
    "group size": (
        "num_generations",
        "group_size",
        "n_samples_per_prompt",
        "num_samples_per_prompt",
        "samples_per_prompt",
        "num_samples",
        "n_samples",
        "num_rollouts",
        "n_rollouts",
        "rollout_n",
        "rollouts_per_prompt",
        "rollouts_per_example",
        "num_return_sequences",
        "num_responses",
        "responses_per_prompt",
        "num_completions",
        "n",
        "N",
    ),
    "lengths": ("lengths", "response_lengths", "completion_lengths", "response_length", "num_tokens"),
    "score norms": ("score_norms", "squared_score_norms"),
    "mask": ("response_mask", "eos_mask", "completion_mask"),
    "index": ("index", "uid", "uids"),
    "config": ("config",),
    "log probs": ("old_log_probs",),
    "squared probs": ("sum_pi_squared",),
}
UNKNOWN = {  # what trainers hand over and the check has not
    "values": "a value function's estimates", "reward_baselines": "rewards of a greedy rollout", "log_probs": "log-probabilities",
    "ref_log_probs": "log-probabilities", "logprobs": "log-probabilities", "entropy": "entropies", "entropys": "entropies",
    "advantages": "advantages",
}  # fmt: skip
VERL_ONLY = ("index", "config", "log probs", "squared probs")  # roles that mean something beside a mask alone


def load(place):
    """The function at "module:function" or "path/file.py:function". Raises InputError when it is not there."""
    module_name, _, name = place.rpartition(":")
    if not module_name or not name:
        raise InputError(f"{place!r}: write module:function or file.py:function")
    is_file = module_name.endswith(".py")
    if is_file and not Path(module_name).is_file():
        raise InputError(f"no file {module_name}")
    sys.path.insert(0, str(Path(module_name).resolve().parent if is_file else Path.cwd()))
    try:
        if is_file:
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot import {module_name}: {in_one_line(error)}") from error
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        candidates = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{module_name} has no function {name!r}{did_you_mean(name, candidates)}")
    return function


def in_one_line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def read(function, convention=None, k_parameter=None, group_size_parameter=None):
    """(convention or None, {role: name of a parameter}) of an advantage function; role "rewards" is its first parameter.

    None: rewards are flat or in groups, which the names do not tell. Raises InputError, in one line, for a parameter without
    a default whose meaning is not clear, and says how to give it.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(f"unknown convention {convention!r}{did_you_mean(convention, CONVENTIONS)}")
    name = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} has no signature to read: wrap it in a function of rewards and k") from error
    named = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    if not named:
        raise InputError(f"{name}{inspect.signature(function)}: give the rewards, and each other parameter, a name of its own")
    roles = {"rewards": named[0]}
    for role, told in (("k", k_parameter), ("group size", group_size_parameter)):
        if told is not None:
            if told not in named[1:] and not anything:
                raise InputError(f"{name} has no parameter {told!r}{did_you_mean(told, named[1:])}")
            roles[role] = told
    taken = set(roles.values())
    for role, words in WORDS.items():
        found = next((word for word in words if word in named[1:] and word not in taken), None)
        if role not in roles and found:
            roles[role] = found
    if convention is None and ("mask" in roles or named[0] == "token_level_rewards"):
        convention = "verl"
    if convention != "verl":
        roles = {role: word for role, word in roles.items() if role not in VERL_ONLY}
    required = [p.name for p in parameters.values() if p.default is p.empty and p.name in named[1:]]
    unclear = [word for word in required if word not in roles.values()]
    if convention == "verl" and "mask" not in roles:  # by place, where the names are others
        for role in ("mask", "index"):
            if role not in roles and unclear:
                roles[role] = unclear.pop(0)
    elif convention == "trl" and "group size" not in roles:
        if not unclear:
            raise InputError(
                f"{name}: the trl convention hands over flat rewards and the group size; say which parameter takes it "
                "with --group-size-parameter NAME"
            )
        roles["group size"] = unclear.pop(0)
    if unclear:
        first = next((word for word in unclear if word in UNKNOWN), unclear[0])
        if first in UNKNOWN:
            raise InputError(
                f"{name}({', '.join(named)}): needs {first!r}, {UNKNOWN[first]}; the check has rewards, k, the group size, mask, "
                "index, lengths and score norms"
            )
        ways = [
            f"--{option} {first}"
            for option, role in (("k-parameter", "k"), ("group-size-parameter", "group size"))
            if role not in roles
        ]
        how = f"say {' or '.join(ways)}, or give it a default" if ways else "give it a default"
        raise InputError(f"{name}({', '.join(named)}): what is {first!r}? {how[0].upper()}{how[1:]}")
    if convention is None and "group size" not in roles:
        convention = "groups"
    return convention, roles
