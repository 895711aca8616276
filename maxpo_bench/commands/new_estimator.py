"""`maxpo-bench new-estimator NAME`: a working file in maxpo_bench/estimators/, ready to be changed."""

import keyword
from pathlib import Path

from maxpo_bench.errors import InputError

PLACE = 11
HELP = "write the file of a new estimator"

TEMPLATE = '''"""{title}: one line that says what it is (authors and year)."""

from maxpo_bench.estimators.contract import estimator
from maxpo_bench.estimators.order_statistics import centre


@estimator(objective="J_1", unbiased=True, centred=True, cost="N", source="arXiv number, or this project")
def {name}(rewards):
    """A_i = r_i - mean of the others. Mean-loss scale. k is accepted and has no role.

    rewards: [..., N] float64, validated; returns new advantages [..., N]. Take a parameter `k` if the formula uses it,
    and keyword parameters with defaults for options. Say here which scale the source uses and what was converted.
    """
    n = rewards.shape[-1]
    return centre(rewards).mul_(n / (n - 1))
'''


def create(name, root):
    """Write maxpo_bench/estimators/<name>.py under `root` and print what to do next. Returns its path.

    The file works as it is (as rloo). Raises InputError for a name that is taken or cannot name a Python function.
    """
    folder = Path(root) / "maxpo_bench" / "estimators"
    path = folder / f"{name}.py"
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or name.startswith("_"):
        raise InputError(f"estimator name {name!r}: use lower-case letters, digits and _, starting with a letter")
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: run this from the root of the project")
    if path.exists():
        raise InputError(f"{path} exists already; choose another name")
    path.write_text(TEMPLATE.format(name=name, title=name.replace("_", " ").capitalize()), encoding="utf-8")
    print(f"""wrote {path}, a working estimator (for now it is rloo)
next:
  1. change its formula, docstring and declaration (options: maxpo_bench/estimators/contract.py)
  2. maxpo-bench check maxpo_bench.estimators.{name}:{name}      what it really does, with counter-examples
  3. pytest tests/estimators tests/check/test_properties.py -k {name}    it is in the tests already
  4. add it to `estimators` in params.yaml and `maxpo-bench run TASK...`: only its own cells run""")
    return path


def arguments(parser):
    parser.add_argument("name")


def run(args):
    from maxpo_bench.settings.task_file import root

    create(args.name, root())
    return 0
