"""`--on ray[:ADDRESS]`: what DVC would run, as tasks of a Ray cluster, and the results in the project as if they had run here.

One process, this one, decides what runs, sends it, writes what comes back and tells DVC. A node holds nothing that is needed: when
one is lost, its stages go on elsewhere from the checkpoints that were sent here.
"""

import heapq
import os
import shutil
import sys
import time
from pathlib import Path

from maxpo_bench.cluster import estimate, worker
from maxpo_bench.cluster.nodes import Nodes, address_of, connected, load_ray
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
QUIET_S = 60.0  # between lines where nothing ended, where no terminal shows them
KEPT_TARS = 32


def run(tasks, part, where, root=None):
    """Compute on Ray what is stale of these tasks, of a part (see repro.run), or, of neither, of all that plain `dvc repro` runs.

    Returns the exit code: 1 when a stage failed (what does not need it has run) or could not be recorded.
    """
    address = address_of(where)
    load_ray(address)
    root = Path(root or task_file.root())
    params = declared(root)
    slow = params["long_tasks"]
    tasks = [task.name for task in chosen_tasks(root, params, slow if part == "long" else list(tasks), slow)]
    dvc_files.write(root, [*params["tasks"], *slow])
    return compute(root, lambda pipeline: pipeline.choose(params, tasks, part), address)


def plan(where, root=None):
    """Say how long `repro --on` would take on how many slots. Returns the exit code."""
    address, pipeline = address_of(where), Pipeline(root or task_file.root())
    chosen, slots = pipeline.choose(declared(pipeline.root)), workers.num_workers()
    if address != "local":
        with connected(address) as ray:
            slots = Nodes(ray, print).slots
    print(f"\non Ray, {'this machine' if address == 'local' else address}: {Work(pipeline, chosen).said(slots)}")
    return 0


def compute(root, choose, address):
    """Run what is stale among choose(pipeline), a set of its stages. Returns the exit code."""
    with files.lock(Path(root) / ".resume" / "locks" / "ray", "--on ray of this project"):
        start = time.monotonic()
        pipeline = Pipeline(root)
        left = pipeline.record()  # what a killed driver had not
        work = Work(pipeline, choose(pipeline))
        if not work.stale:
            print(f"{len(work.stages)} stages, all up to date")
            return 0
        code = pipeline.freeze(work.stages)
        with connected(address) as ray:
            driver = Driver(work, code, ray)
            driver.left |= left
            try:
                driver.loop()
            finally:
                driver.stop()
            return driver.end(time.monotonic() - start)


class Work:
    """The stages of a command, what of them is stale, and what they take."""

    def __init__(self, pipeline, stages):
        self.pipeline, self.root, self.stages = pipeline, pipeline.root, stages
        self.stale = {stage for stage in stages if pipeline.changed(stage)}
        self.resources = {stage: resources(self.root, stage) for stage in stages}
        self.cpus = {stage: cpus for stage, (cpus, _, _) in self.resources.items()}
        self.known = {stage: estimate.seconds(self.root, stage, self.cpus[stage]) for stage in stages}
        self.after = estimate.followers(stages)
        self.rank = estimate.ranks(self.after, self.known)

    def left(self, stages, slots):
        """How long these stages take, in words."""
        least = estimate.in_words(estimate.left(stages, self.known, self.cpus, self.rank, slots))
        return f"{'at least' if any(self.known[stage] is None for stage in stages) else 'about'} {least}"

    def said(self, slots):
        """In words: how many stages there are, how many run, how long they take. What waits for a stale stage counts as stale."""
        to_run, todo = set(), list(self.stale)
        while todo:
            stage = todo.pop()
            if stage not in to_run:
                to_run.add(stage)
                todo += self.after[stage]
        unknown = sum(self.known[stage] is None for stage in to_run)
        guess = f" ({unknown} of unknown length)" if unknown else ""
        waits = " with what waits for them" if len(to_run) > len(self.stale) else ""
        return f"{len(self.stages)} stages, {len(to_run)} to run{waits}: {self.left(to_run, slots)} on {slots} slots{guess}"


class Driver:
    """One run: what waits, what runs, what became of the rest."""

    def __init__(self, work, code, ray):
        self.work, self.pipeline, self.root, self.ray = work, work.pipeline, work.root, ray
        self.ended = {}  # stage: "ran", "up to date", "failed" or "skipped"
        self.running, self.here, self.sent, self.tars, self.left = {}, None, {}, {}, {}
        self.ready, self.ready_here = [], []  # heaps, what the most waits for first
        self.open = {stage: len(stage.waits & work.after.keys()) for stage in work.stages}
        self.noted, self.last_record, self.last_line, self.shown = 0, time.monotonic(), time.monotonic(), False
        self.nodes = Nodes(ray, self.say)
        for stage in work.stale:
            if not stage.here:
                self.nodes.check(stage, *work.resources[stage][1:])
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.kept = self.root / ".resume" / "ray" / "checkpoints"
        keeper = ray.remote(worker.Keeper).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        self.keeper, self.task, self.code = keeper.remote(str(self.kept)), ray.remote(worker.run), ray.put(code)
        self.wanted = worker.about(VERSIONS)
        for stage in work.stages:
            if not self.open[stage]:
                self.push(stage)
        self.say(work.said(self.nodes.slots))

    def loop(self):
        while len(self.ended) < len(self.work.stages):
            self.send()
            self.collect()
            self.nodes.look()
            if self.noted >= BATCH or self.noted and time.monotonic() - self.last_record > BATCH_S:
                self.record()
            self.show()

    # ----------------------------------------------------------------------------------------------------- what is sent

    def push(self, stage):
        heapq.heappush(self.ready_here if stage.here else self.ready, (-self.work.rank[stage], stage.key, stage))

    def send(self):
        """Hand out what is ready; no more than keeps the slots busy, since the cluster may change."""
        while self.ready and len(self.running) < 2 * self.nodes.slots + 2:
            stage = heapq.heappop(self.ready)[2]
            if self.runs(stage):
                self.submit(stage)
        while self.ready_here and not self.here:
            stage = heapq.heappop(self.ready_here)[2]
            if self.runs(stage):
                self.start_here(stage)

    def runs(self, stage):
        """Whether a stage has to run, now that all it waits for has ended; else it has ended too."""
        before = {self.ended[other] for other in stage.waits & self.work.stages}
        # What runs here tells of failed cells, where what it reads is there.
        if before & {"failed", "skipped"} and (not stage.here or self.pipeline.missing(stage)):
            self.finish(stage, "skipped")
        elif not (self.pipeline.changed(stage) if "ran" in before else stage in self.work.stale):
            self.finish(stage, "up to date")
        elif gone := self.pipeline.missing(stage):
            self.finish(stage, "failed", f": {gone} is missing")
        else:
            return True
        return False

    def submit(self, stage):
        self.sent[stage], paths = self.pipeline.read_by(stage)
        options = self.nodes.options(*self.work.resources[stage])
        every = checkpoint_seconds()
        env = {"MAXPO_BENCH_WORKERS": options["num_cpus"], "MAXPO_BENCH_CHECKPOINT_SECONDS": every, "OMP_NUM_THREADS": 1}
        if not options["num_gpus"]:
            env["CUDA_VISIBLE_DEVICES"] = ""  # a stage uses what it got
        about = {
            "id": stage.id,
            "command": stage.command,
            "env": {name: str(value) for name, value in env.items()},
            "outs": self.pipeline.returned(stage),
            "checkpoint_s": every,
            "wanted": self.wanted,
        }
        task = self.task.options(**options, max_retries=LOST_NODES, retry_exceptions=False, name=stage.label)
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
        self.here = (stage, worker.start_command(stage.command, self.root, dict(os.environ), log), log, time.monotonic())

    # ------------------------------------------------------------------------------------------------- what comes back

    def collect(self):
        """What has ended; waits a moment for the next."""
        refs, moment = list(self.running), 0.1 if self.here else 0.5
        if not refs:
            time.sleep(0.05 if self.here else 0)
        elif self.ray.wait(refs, timeout=moment)[0]:
            for ref in self.ray.wait(refs, num_returns=len(refs), timeout=0)[0]:
                self.take(self.running.pop(ref), ref)
        if self.here and self.here[1].poll() is not None:
            (stage, process, log, start), self.here = self.here, None
            worker.kill(process)
            self.judge(stage, process.returncode, worker.tail(log), f" in {time.monotonic() - start:.1f} s here")

    def take(self, stage, ref):
        """The outcome of a task: a result, a node that may not run any, or what Ray says went wrong."""
        try:
            outcome = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return self.judge(stage, 1, str(error), "")
        if outcome["unfit"]:
            self.nodes.refuse(outcome["node"], outcome["host"], outcome["unfit"])
            return self.push(stage)
        self.pipeline.put(stage, outcome["files"])
        return self.judge(stage, outcome["exit_code"], outcome["log"], f" in {outcome['seconds']:.1f} s on {outcome['host']}")

    def judge(self, stage, exit_code, log, where):
        """A stage has ended: note it for DVC, or keep the end of what it said."""
        shutil.rmtree(self.kept / stage.id, ignore_errors=True)
        kept = self.root / ".resume" / "failed" / f"{stage.id}.txt"
        kept.unlink(missing_ok=True)
        sent = self.sent.pop(stage)
        if exit_code == 0:
            try:
                self.pipeline.note(stage, sent)
                self.noted += 1
                return self.finish(stage, "ran", where)
            except Fault as error:
                log += f"\n{error}\n"
        files.write_bytes(kept, log.encode()[-worker.LOG_BYTES :])
        last = one_line(log.strip().splitlines()[-1] if log.strip() else "it said nothing")
        return self.finish(stage, "failed", f" (exit code {exit_code}): {last} [{kept.relative_to(self.root)}]")

    def finish(self, stage, how, about=""):
        self.ended[stage] = how
        for other in self.work.after[stage]:
            self.open[other] -= 1
            if not self.open[other]:
                self.push(other)
        if how == "failed" or how == "ran" and not sys.stderr.isatty():
            self.say(f"[{len(self.ended)}/{len(self.work.stages)}] {stage.label}: {how}{about}")

    def record(self):
        self.last_record = time.monotonic()
        try:
            self.left |= self.pipeline.record()
            self.noted = 0
        except InputError as error:
            self.say(f"{error}; will try again")

    # --------------------------------------------------------------------------------------------------- what is shown

    def count(self, how):
        return sum(ended == how for ended in self.ended.values())

    def show(self):
        """One line on a terminal; elsewhere one now and then."""
        terminal, now = sys.stderr.isatty(), time.monotonic()
        if now - self.last_line < (0.5 if terminal else QUIET_S):
            return
        self.last_line = now
        left = self.work.left(self.work.stages - self.ended.keys(), self.nodes.slots)
        running, failed = min(len(self.running), self.nodes.slots) + bool(self.here), self.count("failed")
        text = f"{len(self.ended)} of {len(self.work.stages)} done, {running} running, {failed} failed, {left} left"
        if terminal:
            print(f"\r{text[: shutil.get_terminal_size().columns - 1]}\033[K", end="", file=sys.stderr, flush=True)
        else:
            print(text, flush=True)
        self.shown = terminal

    def say(self, line=""):
        """A line of its own; "": no progress line any more."""
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self.shown = False
        if line:
            print(line, flush=True)
            self.last_line = 0.0 if sys.stderr.isatty() else time.monotonic()

    def stop(self):
        """End whatever still runs, and record what has ended. Quick: a Ctrl-C waits for it."""
        if self.here:
            worker.kill(self.here[1])
        for ref in self.running:
            self.ray.cancel(ref)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=1)
        self.record()
        self.say()

    def end(self, seconds):
        """Say how it went. Returns the exit code."""
        for label, why in self.left.items():
            print(f"left stale: {label}: {why}; the same command runs it again")
        if self.noted:
            print(f"{self.noted} finished stages are not recorded yet; the same command does it")
        names = [f"{self.count(how)} {how}" for how in ("ran", "up to date", "failed", "skipped") if self.count(how)]
        print(f"{', '.join(names)}, after {estimate.in_words(seconds)}")
        if any(how == "ran" and stage.key == "dvc.yaml:report" for stage, how in self.ended.items()):
            print(f"Report: {self.root / 'results' / 'report.html'} (and report.md)")
        return 1 if self.left or self.noted or self.count("failed") else 0
