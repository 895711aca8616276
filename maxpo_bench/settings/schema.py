"""Every legal key of a task file, with its type, range and default. A new kind of task is one entry of KINDS."""

from dataclasses import dataclass

REQUIRED = object()


@dataclass(frozen=True)
class Key:
    """One legal key of a task file."""

    type: type | tuple
    default: object = REQUIRED
    low: float | None = None  # smallest legal value
    high: float | None = None  # largest legal value
    choices: tuple = ()
    doc: str = ""
    each: "Key | None" = None  # what each entry of a list must be
    length: int | None = None  # how many entries a list has


_BETA = Key(float, low=0.0, high=1 - 1e-9)

COMMON = {
    "version": Key(int, low=1, high=1, doc="format of this file"),
    "kind": Key(str, doc="what is sampled; the key of KINDS, or path.py:Class beside the YAML"),
    "tags": Key(list, default=(), doc="words to filter by", each=Key(str)),
    "title": Key(str, doc="one line for the report"),
    "k": Key(int, low=1, doc="the target: J_k = E[max of k samples]"),
    "group_size": Key(int, low=2, doc="N, completions per prompt or episodes per start state"),
    "groups": Key(int, default=1, low=1, doc="prompts or start states per step"),
    "steps": Key(int, low=1, doc="policy updates"),
    "seeds": Key(int, default=10, low=1, doc="the cell runs seeds 0 .. seeds-1"),
    "optimiser": {
        "name": Key(str, default="adam", choices=("adam", "adamw", "sgd")),
        "lr": Key(float, low=0.0),
        "betas": Key(list, default=(0.9, 0.999), each=_BETA, length=2),
        "weight_decay": Key(float, default=0.0, low=0.0),
        "warmup_steps": Key(int, default=0, low=0, doc="linear warm-up of the learning rate"),
    },
    "evaluation": {
        "every": Key(int, default=0, low=0, doc="steps between evaluations along training; 0: only first and last"),
        "prompts": Key(int, default=1, low=1, doc="held-out prompts or start states, first and last evaluation"),
        "samples": Key(int, default=64, low=2, doc="n samples per prompt, first and last evaluation"),
        "curve_prompts": Key(int, default=0, low=0, doc="prompts for the evaluations in between; 0: as above"),
        "curve_samples": Key(int, default=0, low=0, doc="samples for the evaluations in between; 0: as above"),
    },
    "score": {
        "success": Key(float, default=1.0, doc="a sample passes when its reward is at least this"),
    },
    "variance": {
        "groups": Key(int, default=256, low=8, doc="M, groups drawn to measure the gradient estimator"),
    },
    "loss": {
        "clip": Key(float, default=0.0, low=0.0, doc="PPO clip range; 0: plain policy gradient"),
        "epochs": Key(int, default=1, low=1, doc="passes over each batch; more than 1 wants a clip"),
        "kl": Key(float, default=0.0, low=0.0, doc="weight of KL(policy || base policy)"),
        "micro_batch": Key(int, default=0, low=0, doc="rows per backward pass; 0: all at once"),
        "max_grad_norm": Key(float, default=0.0, low=0.0, doc="0: no clipping (it binds for max@k and not for means)"),
    },
}

_ENV = {
    "id": Key(str, doc="any registered gymnasium id"),
    "kwargs": Key(dict, default={}),
    "wrappers": Key(list, default=(), doc="module:Class of wrappers, innermost first", each=Key(str)),
    "max_episode_steps": Key(int, default=0, low=0, doc="0: the environment's own time limit"),
    "backend": Key(str, default="gymnasium", choices=("gymnasium", "envpool")),
}
_OUTCOME = {
    "type": Key(str, default="return", choices=("return", "success", "final", "normalised")),
    "threshold": Key(float, default=1.0, doc="success: reward 1 when the return is at least this, else 0"),
    "low": Key(float, default=0.0, doc="normalised: the return that counts 0"),
    "high": Key(float, default=1.0, doc="normalised: the return that counts 1"),
}
_MODEL = {
    "architecture": Key(str, default="llama", choices=("llama", "qwen2")),
    "hidden_size": Key(int, default=64, low=8),
    "layers": Key(int, default=2, low=1),
    "heads": Key(int, default=4, low=1),
    "mlp_size": Key(int, default=128, low=8),
}
_WARM_START = {
    "steps": Key(int, low=0),
    "batch_size": Key(int, default=128, low=1),
    "lr": Key(float, default=3e-3, low=0.0),
    "betas": Key(list, default=(0.9, 0.98), each=_BETA, length=2),
    "warmup_steps": Key(int, default=50, low=0),
}
_SAMPLING = {
    "max_new_tokens": Key(int, low=1),
    "temperature": Key(float, default=1.0, low=1e-3),
    "stop": Key(list, default=(), doc="texts; a completion ends at the first of them, which is no part of it", each=Key(str)),
    "truncated": Key(str, default="as_is", choices=("as_is", "zero"), doc="zero: a completion cut off at max_new_tokens earns 0"),
}
_DEVICE = Key(
    str, default="auto", choices=("auto", "cpu", "cuda", *(f"cuda:{n}" for n in range(8))), doc="auto: a GPU where there is one"
)
_LANGUAGE = {"device": _DEVICE, "model": _MODEL, "warm_start": _WARM_START, "sampling": _SAMPLING}

KINDS = {  # kind -> its own keys and sections
    "bandit": {
        "arms": {
            "count": Key(int, low=2),
            "rewards": Key(str, default="linear", choices=("linear", "exponential", "gaussian", "local_optimum", "risky")),
            "start": Key(str, default="uniform", choices=("uniform", "local_optimum")),
            "start_prob": Key(float, default=0.9, low=1e-6, high=1 - 1e-6, doc="start: local_optimum: chance of arm 0"),
        },
    },
    "tabular": {"env": _ENV, "outcome": _OUTCOME},
    "gymnasium": {
        "env": _ENV,
        "outcome": _OUTCOME,
        "policy": {
            "hidden": Key(list, default=(32,), doc="widths of the hidden layers", each=Key(int, low=2, high=10_000)),
            "observation_scale": Key(float, default=1.0, low=1e-9, high=1e9, doc="what observations are multiplied by"),
            "log_std": Key(float, default=-0.5, low=-10, high=10, doc="continuous actions: log of the first standard deviation"),
        },
    },
    "countdown": {
        **_LANGUAGE,
        "data": {
            "digits": Key(int, low=2, high=5, doc="how many digits 1-9 a prompt gives"),
            "max_target": Key(int, default=99, low=1, high=999, doc="largest target asked for"),
            "graded": Key(bool, default=False, doc="partial rewards for near misses, instead of 0/1"),
        },
    },
    "text_maze": {
        **_LANGUAGE,
        "data": {
            "size": Key(int, default=5, low=3, high=9, doc="cells on a side"),
            "min_distance": Key(int, default=3, low=1, doc="moves from start to goal on a shortest way, at least"),
            "max_distance": Key(int, default=8, low=1, doc="the same, at most"),
            "walk_length": Key(int, default=12, low=1, doc="moves of a warm-start walk that misses the goal"),
            "walk_tries": Key(int, default=1, low=1, doc="warm-start walks tried until one hits the goal"),
            "graded": Key(bool, default=False, doc="partial rewards for near misses, instead of 0/1"),
        },
    },
    "subset_sum": {
        **_LANGUAGE,
        "data": {
            "digits": Key(int, default=6, low=3, high=7, doc="how many digits 1-9 a prompt gives"),
            "graded": Key(bool, default=False, doc="partial rewards for near misses, instead of 0/1"),
        },
    },
    "reasoning_gym": {
        **_LANGUAGE,
        "data": {
            "dataset": Key(str, doc="name of the data set in reasoning-gym"),
            "options": Key(dict, default={}, doc="its configuration"),
            "seed": Key(int, default=0, low=0, doc="of the data set, not of the run"),
            "num_train": Key(int, default=4096, low=1, doc="items for training"),
            "num_held_out": Key(int, default=512, low=1, doc="items before them, for evaluation"),
            "scorer": Key(str, default="exact", choices=("exact", "own"), doc="own: the data set's, where it is safe"),
            "threshold": Key(float, default=1.0, doc="scorer: own: reward 1 when the score is at least this"),
        },
    },
    "huggingface": {
        "device": _DEVICE,
        "model": {"name": Key(str, doc="hub id or local folder of a causal language model (safetensors)")},
        "warm_start": {"steps": Key(int, default=0, low=0, high=0, doc="a pretrained model starts as it is")},
        "sampling": _SAMPLING,
        "data": {
            "source": Key(str, doc="hub id, local folder or JSONL file of questions"),
            "subset": Key(str, default="", doc="configuration of a hub data set"),
            "split": Key(str, default="train"),
            "held_out_split": Key(str, default="", doc="empty: 15% of split, by a hash of the prompt"),
            "prompt_column": Key(str, default="question"),
            "answer_column": Key(str, default="answer"),
            "template": Key(str, default="{prompt}", doc="what the model reads; {prompt} is the question"),
            "chat": Key(bool, default=True, doc="wrap in the tokenizer's chat template"),
            "date": Key(str, default="26 Jul 2024", doc="what is today to a chat template that prints the date"),
            "answer": Key(
                str,
                default="last_number",
                choices=("last_number", "marked", "boxed", "whole"),
                doc="marked: after ####, in \\boxed{} or <answer>; boxed: in \\boxed{}; whole: the completion is the number alone",
            ),
            "answer_tolerance": Key(float, default=0.0, low=0.0),
        },
    },
}
