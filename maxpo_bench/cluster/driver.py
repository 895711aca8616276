"""`--on ray[:ADDRESS]`: what DVC would run, as tasks of a Ray cluster, and the results in the project as if they had run here.

One process, this one, decides what runs, sends it, writes what comes back and tells DVC. A node holds nothing that is needed: when
one is lost, its stages go on elsewhere from the checkpoints that were sent here.
"""

import os
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from maxpo_bench.cluster import estimate, worker
from maxpo_bench.cluster.stages import BATCH, BATCH_S, Pipeline, resources
from maxpo_bench.errors import Fault, InputError, one_line
from maxpo_bench.machine import files, workers
from maxpo_bench.pipeline import dvc_files
from maxpo_bench.pipeline.cell import checkpoint_seconds
from maxpo_bench.pipeline.jobs import VERSIONS
from maxpo_bench.pipeline.plan import declared
from maxpo_bench.pipeline.repro import chosen_tasks
from maxpo_bench.settings import task_file

LOST_NODES = 3  # a stage may lose its node so often
LOOK_S = 5.0  # at the nodes
QUIET_S = 60.0  # between lines where nothing ended, where no terminal shows them
KEPT_TARS = 32


def address_of(where):
    """The Ray address in the argument of --on ("ray", "ray:ADDRESS"); "local" for this machine alone. InputError for others."""
    kind, _, address = where.partition(":")
    if kind != "ray" or where.endswith(":"):
        raise InputError(f"--on {where}: must be ray (this machine) or ray:ADDRESS (a cluster, like ray:auto or ray:10.0.0.1:6379)")
    if address.startswith("ray://") or address.startswith("//"):
        raise InputError(f"--on {where}: the driver must run on a node of the cluster; there, say --on ray:auto")
    return address or "local"


def run(tasks, part, where, root=None):
    """Compute on Ray what is stale of these tasks, of a part (see repro.run), or, of neither, of all that plain `dvc repro` runs.

    Returns the exit code: 1 when a stage failed (what does not need it has run) or could not be recorded.
    """
    address = address_of(where)
    load_ray()
    root = Path(root or task_file.root())
    params = declared(root)
    slow = params["long_tasks"]
    tasks = [task.name for task in chosen_tasks(root, params, slow if part == "long" else list(tasks), slow)]
    dvc_files.write(root, [*params["tasks"], *params["long_tasks"]])
    return compute(root, lambda pipeline: pipeline.choose(params, tasks, part), address)


def plan(where, root=None):
    """How long `repro --on` would take on how many slots. Returns the exit code."""
    address, root = address_of(where), Path(root or task_file.root())
    params = declared(root)
    dvc_files.write(root, [*params["tasks"], *params["long_tasks"]])
    pipeline = Pipeline(root)
    chosen = pipeline.choose(params)
    slots = workers.num_workers()
    if address != "local":
        with connected(address) as ray:
            slots = int(ray.cluster_resources().get("CPU", 0)) or 1
    stale = {stage for stage in chosen if pipeline.changed(stage)}
    print(f"\non Ray, {'this machine' if address == 'local' else address}: {forecast(pipeline.root, chosen, stale, slots)}")
    return 0


def forecast(root, chosen, stale, slots):
    """In words: how many stages there are, how many run, how long they take. What waits for a stale stage counts as stale."""
    to_run = {stage for stage in chosen if stage in stale}
    while more := {stage for stage in chosen - to_run if stage.waits & to_run}:
        to_run |= more
    cpus = {stage: resources(root, stage)[0] for stage in to_run}
    known = {stage: estimate.seconds(root, stage, cpus[stage]) for stage in to_run}
    guess = ", some of unknown length" if None in known.values() else ""
    left = estimate.in_words(estimate.makespan(to_run, known, cpus, slots))
    return f"{len(chosen)} stages, {len(to_run)} to run: about {left} on {slots} slots{guess}"


def load_ray():
    """The module ray, quiet. InputError with what to install where it is not there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError('--on ray needs ray, which comes with an extra: pip install "maxpo-bench[suite,ray]"') from None
    return ray


@contextmanager
def connected(address):
    """The module ray, connected to a cluster or to a local one of its own, which ends with the block. Keeps our signal handlers."""
    ray = load_ray()
    options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address == "local":
        options |= {"num_cpus": workers.num_workers(), "include_dashboard": False}
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in workers.STOP_SIGNALS}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--on ray:{address}: cannot join it: {one_line(error)}") from None
    finally:
        if main:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    ray.cloudpickle.register_pickle_by_value(worker)
    try:
        yield ray
    finally:
        ray.shutdown()


def compute(root, choose, address):
    """Run what is stale among choose(pipeline), a set of its stages. Returns the exit code."""
    with files.lock(Path(root) / ".resume" / "locks" / "ray", "--on ray of this project"):
        start = time.monotonic()
        pipeline = Pipeline(root)
        chosen = choose(pipeline)
        left = pipeline.record()  # what a killed driver had not
        code = pipeline.freeze(chosen)
        stale = {stage for stage in chosen if pipeline.changed(stage)}
        if not stale:
            print(f"{len(chosen)} stages, all up to date")
            return 0
        with connected(address) as ray:
            driver = Driver(pipeline, chosen, code, ray, start)
            driver.say(forecast(pipeline.root, chosen, stale, driver.slots))
            driver.left |= left
            try:
                driver.loop()
            finally:
                driver.stop()
            return driver.end()


class Driver:
    """The state of one run: what waits, what runs, what became of the rest."""

    def __init__(self, pipeline, stages, code, ray, start):
        self.pipeline, self.root, self.ray, self.start = pipeline, pipeline.root, ray, start
        self.waiting, self.running, self.ended = set(stages), {}, {}  # ended: "ran", "up to date", "failed" or "skipped"
        self.left, self.here, self.refused, self.sent, self.tars = {}, None, {}, {}, {}
        self.resources = {stage: resources(self.root, stage) for stage in stages}
        self.known = {stage: estimate.seconds(self.root, stage, self.resources[stage][0]) for stage in stages}
        self.rank = estimate.ranks(stages, self.known)
        self.after = {stage: [] for stage in stages}
        for stage in stages:
            for other in stage.waits & self.after.keys():
                self.after[other].append(stage)
        self.open = {stage: len(stage.waits & self.after.keys()) for stage in stages}
        self.ready = {stage for stage in stages if not self.open[stage]}
        self.noted, self.last_record, self.last_look, self.last_line, self.shown = 0, time.monotonic(), 0.0, time.monotonic(), False
        self.nodes, self.slots = {}, 1
        self.look()
        self._fits()
        here = ray.get_runtime_context().get_node_id()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        kept = self.root / ".resume" / "ray" / "checkpoints"
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": pinned}
        self.keeper = ray.remote(worker.Keeper).options(**options).remote(str(kept))
        self.kept = kept
        self.task = ray.remote(worker.run)
        self.code = ray.put(code)
        self.wanted = worker.about(VERSIONS)

    # ----------------------------------------------------------------------------------------------------------- the nodes

    def look(self):
        """At the nodes that are there now."""
        self.last_look = time.monotonic()
        nodes = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        for node in self.nodes.keys() - nodes.keys():
            self.say(f"node {self._host(node)} is lost; what ran there goes on elsewhere")
        self.nodes = nodes | {node: self.nodes[node] for node in self.nodes if node in self.refused}
        fit = [node["Resources"] for name, node in nodes.items() if name not in self.refused]
        self.slots = max(1, int(sum(each.get("CPU", 0) for each in fit)))
        self.most = {name: max((each.get(name, 0) for each in fit), default=0) for name in ("CPU", "GPU", "memory")}
        if not self.most["CPU"] and self.refused:
            raise InputError(f"no node is left: {'; '.join(self.refused.values())}")

    def _host(self, node):
        about = self.nodes.get(node)
        return f"{about['NodeManagerHostname']} ({about['NodeManagerAddress']}, {node[:8]})" if about else node[:8]

    def _fits(self):
        for stage, (_, gpus, memory) in self.resources.items():
            for name, asked, unit in (("GPU", gpus, 1), ("memory", memory, 10**9)):
                if not stage.here and asked > self.most[name] and self.pipeline.changed(stage):
                    most = f"the largest node has {self.most[name] / unit:g}"
                    raise InputError(f"tasks/{stage.task}.yaml: resources: {name} {asked / unit:g} is asked for, {most}")

    def refuse(self, node, host, why):
        if node not in self.refused:
            self.refused[node] = f"node {self._host(node) if node in self.nodes else host} is left out: {why}"
            self.say(self.refused[node])
            self.look()

    # ------------------------------------------------------------------------------------------------------------ the loop

    def loop(self):
        while self.waiting or self.running or self.here:
            self.send()
            self.collect()
            now = time.monotonic()
            if now - self.last_look > LOOK_S:
                self.look()
            if self.noted >= BATCH or self.noted and now - self.last_record > BATCH_S:
                self.record()
            self.show()

    def send(self):
        """Hand out what is ready, what the most waits for first. No more than keeps the slots busy: the rest may still change."""
        for stage in sorted(self.ready, key=lambda stage: (-self.rank[stage], stage.key)):
            if len(self.running) >= 2 * self.slots + 2 and not stage.here or stage.here and self.here:
                continue
            self.ready.discard(stage)
            if not stage.here and any(self.ended.get(other) in ("failed", "skipped") for other in stage.waits):
                self.finish(stage, "skipped")
            elif not self.pipeline.changed(stage):
                self.finish(stage, "up to date")
            elif stage.here:
                self.start_here(stage)
            else:
                self.submit(stage)

    def submit(self, stage):
        self.sent[stage], paths = self.pipeline.read_by(stage)
        cpus, gpus, memory = self.resources[stage]
        cpus = max(1, min(cpus, int(self.most["CPU"])))
        about = {
            "id": stage.id,
            "command": stage.command,
            "env": {"MAXPO_BENCH_WORKERS": str(cpus), "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"},
            "outs": self.pipeline.returned(stage),
            "checkpoint_s": checkpoint_seconds(),
            "wanted": self.wanted,
        }
        about["env"]["MAXPO_BENCH_CHECKPOINT_SECONDS"] = str(checkpoint_seconds())
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": LOST_NODES, "retry_exceptions": False, "name": stage.label}
        options |= {"memory": memory} if memory else {}
        options |= {"label_selector": {"ray.io/node-id": f"!in({','.join(self.refused)})"}} if self.refused else {}
        task = self.task.options(**options)
        self.running[task.remote(about, self.code, self.tar(stage, paths), self.keeper)] = stage

    def tar(self, stage, paths):
        """The results that a stage reads, in the object store; the cells of a task share theirs."""
        key = (stage.task, paths)
        if key not in self.tars or any(out.persist for out in stage.dvc.outs):
            while len(self.tars) >= KEPT_TARS:
                del self.tars[next(iter(self.tars))]
            self.tars[key] = self.ray.put(worker.pack(self.root, paths))
        return self.tars[key]

    def start_here(self, stage):
        self.sent[stage], _ = self.pipeline.read_by(stage)
        self.pipeline.clear(stage)
        log = self.root / ".resume" / "ray" / "here.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.here = (stage, worker.start_command(stage.command, self.root, dict(os.environ), log), log)

    def collect(self):
        """What has ended, waiting up to half a second for the next."""
        refs = list(self.running)
        done = self.ray.wait(refs, timeout=0.1 if self.here else 0.5)[0] if refs else time.sleep(0.05)
        if done:
            done = self.ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        for ref in done or ():
            self.take(self.running.pop(ref), ref)
        if self.here and self.here[1].poll() is not None:
            (stage, process, log), self.here = self.here, None
            worker.kill(process)
            self.judge(stage, process.returncode, worker.tail(log), "")

    def take(self, stage, ref):
        """The outcome of a task: a result, a node that may not, or what Ray says went wrong."""
        try:
            outcome = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return self.judge(stage, 1, f"{one_line(error)}\n", "")
        if outcome["unfit"]:
            self.refuse(outcome["node"], outcome["host"], outcome["unfit"])
            self.ready.add(stage)
            return None
        self.pipeline.put(stage, outcome["files"])
        return self.judge(stage, outcome["exit_code"], outcome["log"], f" in {outcome['seconds']:.1f} s on {outcome['host']}")

    def judge(self, stage, exit_code, log, where):
        """A stage has ended: note it for DVC, or keep the end of what it said."""
        shutil.rmtree(self.kept / stage.id, ignore_errors=True)
        failed = self.root / ".resume" / "failed" / f"{stage.id}.txt"
        failed.unlink(missing_ok=True)
        if exit_code == 0:
            try:
                self.pipeline.note(stage, self.sent.pop(stage))
                self.noted += 1
                return self.finish(stage, "ran", where)
            except Fault as error:
                log += f"\n{error}\n"
        files.write_bytes(failed, log.encode())
        last = (log.strip().splitlines() or ["it said nothing"])[-1][:160]
        return self.finish(stage, "failed", f" (exit code {exit_code}): {last} [{failed.relative_to(self.root)}]")

    def finish(self, stage, how, about=""):
        self.waiting.discard(stage)
        self.ended[stage] = how
        for other in self.after[stage]:
            self.open[other] -= 1
            if not self.open[other]:
                self.ready.add(other)
        if how == "failed" or how == "ran" and not sys.stderr.isatty():
            self.say(f"[{len(self.ended)}/{len(self.after)}] {stage.label}: {how}{about}")

    def record(self):
        try:
            self.left |= self.pipeline.record()
            self.noted = 0
        except InputError as error:
            self.say(f"{error}; will try again")
        self.last_record = time.monotonic()

    # ------------------------------------------------------------------------------------------------------- what is shown

    def count(self, how):
        return sum(ended == how for ended in self.ended.values())

    def show(self):
        """One line on a terminal; elsewhere one now and then."""
        now = time.monotonic()
        if now - self.last_line < (0.5 if sys.stderr.isatty() else QUIET_S):
            return
        self.last_line = now
        cpus = {stage: self.resources[stage][0] for stage in self.waiting}
        left = estimate.in_words(estimate.makespan(self.waiting, self.known, cpus, self.slots))
        running = min(len(self.running), self.slots)
        text = f"{len(self.ended)} of {len(self.after)} done, {running} running, {self.count('failed')} failed, about {left} left"
        if sys.stderr.isatty():
            print(f"\r{text[: shutil.get_terminal_size().columns - 1]}\033[K", end="", file=sys.stderr, flush=True)
            self.shown = True
        else:
            print(text, flush=True)

    def say(self, line):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self.shown = False
        print(line, flush=True)
        self.last_line = time.monotonic() if not sys.stderr.isatty() else self.last_line

    def stop(self):
        """End whatever still runs, and record what has ended. Quick: a Ctrl-C waits for it."""
        if self.here:
            worker.kill(self.here[1])
        if self.running:
            for ref in self.running:
                self.ray.cancel(ref)
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=2)
        self.record()
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def end(self):
        """Says how it went. Returns the exit code."""
        for label, why in self.left.items():
            print(f"left stale: {label}: {why}; the same command runs it again")
        names = [f"{self.count(how)} {how}" for how in ("ran", "up to date", "failed", "skipped") if self.count(how)]
        print(f"{', '.join(names)}, after {estimate.in_words(time.monotonic() - self.start)}")
        return 1 if self.left or self.count("failed") or self.noted else 0
