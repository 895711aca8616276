"""What a killed cell goes on from: the last two checkpoints of each job, of which the newest whole one is used."""

from contextlib import suppress

from maxpo_bench.errors import InputError
from maxpo_bench.machine import files
from maxpo_bench.training.loop import Clock, Run


class Checkpoints:
    """The last two checkpoints of one job. The newest that is whole is used: a truncated one is passed over."""

    def __init__(self, folder, job):
        self.paths = [folder / f"seeds-{job[0]}-{job[-1]}.{name}.safetensors" for name in ("a", "b")]
        self.turn = 0

    def save(self, run, problem, wall_s=0.0):
        """wall_s: seconds the cell has taken so far, over all its sessions."""
        tensors = {}
        states = {**run.states, "policy": problem.policy_states(run.policy)}
        for when, per_seed in states.items():
            for s, state in enumerate(per_seed):
                tensors.update({f"{when}/{s}/{name}": tensor for name, tensor in state.items()})
        for index, entries in run.optimiser.state.items():
            tensors.update({f"optimiser/{index}/{name}": entry for name, entry in entries.items()})
        about = {
            "step": run.step,
            "rows": run.rows,
            "ladders": run.ladders,
            "diverged": run.diverged,
            "phases": dict(run.clock.phases),
            "verifier_errors": problem.verifier_errors,
            "wall_s": wall_s,
        }
        files.save_tensors(self.paths[self.turn], tensors, about)
        self.turn = 1 - self.turn

    def wall_s(self):
        """Seconds the cell had taken by the newest whole checkpoint; 0 without one."""
        found = []
        for path in self.paths:
            if path.is_file():
                with suppress(InputError):
                    found.append(files.load_about(path))
        return max(found, key=lambda about: about["step"])["wall_s"] if found else 0.0

    def load(self):
        """(tensors, about) of the newest whole checkpoint, or None."""
        found = []
        for turn, path in enumerate(self.paths):
            if path.is_file():
                try:
                    found.append((files.load_tensors(path), turn))
                except InputError:
                    continue  # truncated by a crash; the other one is older but whole
        if not found:
            return None
        (tensors, about), turn = max(found, key=lambda item: item[0][1]["step"])
        self.turn = 1 - turn
        return tensors, about

    def restore(self, task, problem, saved):
        """The Run that was saved."""
        tensors, about = saved
        states, optimiser = {}, {}
        for key, tensor in tensors.items():
            when, index, name = key.split("/", 2)
            if when == "optimiser":
                optimiser.setdefault(int(index), {})[name] = tensor
            else:
                states.setdefault(when, {}).setdefault(int(index), {})[name] = tensor
        states = {when: [per_seed[s] for s in sorted(per_seed)] for when, per_seed in states.items()}
        run = Run(task, problem, states.pop("policy"))
        run.states = states
        run.optimiser.restore(optimiser)
        run.step, run.rows = about["step"], about["rows"]
        run.ladders = [{int(k): value for k, value in rungs.items()} for rungs in about["ladders"]]
        run.diverged = {int(seed): reason for seed, reason in about["diverged"].items()}
        run.clock = Clock(about["phases"])
        problem.verifier_errors = about["verifier_errors"]
        return run
