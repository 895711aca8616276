"""Every estimator of the registry as a verl advantage estimator, `maxpo_bench.NAME`, registered when this module is imported.

By the entry point `verl.plugins` of the installed package verl imports it, or by
VERL_USE_EXTERNAL_MODULES=maxpo_bench.adapters.verl.

    algorithm.adv_estimator=maxpo_bench.maxpo +algorithm.maxpo_bench.k=4
"""

import logging

from maxpo_bench.adapters import check_version, groups
from maxpo_bench.errors import InputError, did_you_mean
from maxpo_bench.estimators import names

PREFIX, KEYS = "maxpo_bench.", ("k", "clip_k", "options")
logger = logging.getLogger(__name__)


def advantage_estimator(estimator, k=1, clip_k=False, **options):
    """f(token_level_rewards, response_mask, index, config) -> (advantages, returns), as verl and SkyRL call it.

    token_level_rewards [B, T], summed over a row; response_mask [B, T]; index [B], the prompt of each row, in any order, groups
    of any sizes; both results [B, T], the row's advantage on each of its tokens, 0 beside the mask, in the rewards' dtype.
    The section `maxpo_bench` of config, where it is there, replaces k, clip_k (see groups.advantages) and options.
    """

    def compute(token_level_rewards, response_mask, index=None, config=None, **others):
        if index is None:
            raise InputError(
                f"{estimator}: verl handed over no uid, so groups are unknown; the batch needs non_tensor_batch['uid']"
            )
        chosen = {"k": k, "clip_k": clip_k, "options": options} | _section(config)
        places: dict = {}
        for row, prompt in enumerate(index):
            places.setdefault(prompt, []).append(row)
        scores, lengths = token_level_rewards.double().sum(-1), response_mask.sum(-1).clamp_min(1)
        rows = list(places.values())
        try:
            found = groups.advantages(
                [scores[row] for row in rows], estimator, chosen["k"], clip_k=chosen["clip_k"],
                lengths=[lengths[row] for row in rows], **chosen["options"],
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{error} (prompts in order: {', '.join(map(str, list(places)[:3]))}, ...)") from None
        if found.clipped:
            logger.warning("%s: k = %s clipped in %d of %d groups", estimator, chosen["k"], found.clipped, len(rows))
        advantages = scores.new_zeros(len(scores))
        for row, values in zip(rows, found, strict=True):
            advantages[row] = values
        advantages = (advantages[:, None] * response_mask).to(token_level_rewards.dtype)
        return advantages, advantages

    compute.__name__ = f"maxpo_bench_{getattr(estimator, '__name__', estimator)}"
    return compute


def _section(config):
    section = config.get("maxpo_bench", None) if hasattr(config, "get") else getattr(config, "maxpo_bench", None)
    section = {} if section is None else {key: section[key] for key in section}
    for key in section:
        if key not in KEYS:
            raise InputError(f"algorithm.maxpo_bench: unknown key {key!r}{did_you_mean(key, KEYS)}. Known: {', '.join(KEYS)}")
    return section


def register():
    """Registers every estimator in verl. Out of the tested versions they raise, when used, the line that says so: verl hides
    what a plugin raises while it is loaded."""
    from verl.trainer.ppo import core_algos

    try:
        check_version("verl", (0, 9), (0, 10))
        wrong = None
    except InputError as error:
        wrong = str(error)
    for name in names():
        if PREFIX + name not in core_algos.ADV_ESTIMATOR_REGISTRY:
            core_algos.register_adv_est(PREFIX + name)(_refusing(wrong) if wrong else advantage_estimator(name))


def _refusing(line):
    def compute(*args, **kwargs):
        raise InputError(line)

    return compute


register()
