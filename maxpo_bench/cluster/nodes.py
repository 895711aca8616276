"""Ray itself: joining a cluster, or one of this machine alone, and the nodes that are in it."""

import os
import secrets
import signal
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from maxpo_bench.cluster import worker
from maxpo_bench.errors import Fault, InputError, one_line
from maxpo_bench.machine import workers

LOOK_S = 5.0
START_ONE = "`ray start --head` starts one (docs/many-machines.md)"
ANSWER_S = 5.0  # a cluster that does not answer within is none


def address_of(where):
    """The Ray address in the argument of --on ("ray", "ray:ADDRESS"); "local" for this machine alone. InputError for others."""
    kind, colon, address = where.partition(":")
    if kind != "ray" or bool(colon) != bool(address):
        raise InputError(f"--on {where}: must be ray (this machine) or ray:ADDRESS (a cluster, like ray:auto or ray:10.0.0.1:6379)")
    if "//" in address:
        raise InputError(f"--on {where}: the driver must run on a node of the cluster; there, say --on ray:auto")
    return address or "local"


def check_answers(address):
    """InputError when nothing listens at a cluster's address: Ray would wait, for one that is no more for ever."""
    from ray._private.services import get_ray_address_from_environment  # RAY_ADDRESS, or what `ray start` wrote down

    try:
        found = get_ray_address_from_environment(address, None)
    except ConnectionError:
        found = None
    if found in (None, "auto"):
        raise InputError(f"--on ray:{address}: no cluster runs on this machine; {START_ONE}")
    host, colon, port = found.rpartition(":")
    if not colon or not port.isdigit():
        return  # Ray says what is wrong with it
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError):
        raise InputError(f"--on ray:{address}: no cluster answers at {found}; {START_ONE}") from None


def load_ray(address):
    """The module ray, quiet, for a cluster or "local". InputError with what to install where it is not there."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "RAY_AUTH_MODE" in os.environ:  # read when ray is imported
        pass
    elif address == "local":  # without one Ray writes a token into the home, which later clusters would ask for
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    elif (Path.home() / ".ray" / "auth_token").is_file():  # as Ray does, but where an address is given
        os.environ["RAY_AUTH_MODE"] = "token"
    try:
        import ray
    except ImportError:
        raise InputError('--on ray needs ray, which comes with an extra: pip install "maxpo-bench[suite,ray]"') from None
    return ray


@contextmanager
def connected(address):
    """The module ray, connected to a cluster, or to one of this machine that ends with the block. Signals stay ours."""
    ray = load_ray(address)
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": workers.num_workers(), "include_dashboard": False}
    else:
        check_answers(address)
    handlers = {number: signal.getsignal(number) for number in workers.STOP_SIGNALS}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = "it runs, but has another version of Ray, another RAY_AUTH_MODE or another ~/.ray/auth_token"
        raise InputError(f"--on ray:{address}: cannot join it ({one_line(error)}): {told}") from None
    except Exception as error:  # what Ray raises when a node of its own does not start in 30 s
        raise Fault(f"Ray does not start: {one_line(error)}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    ray.cloudpickle.register_pickle_by_value(worker)
    try:
        yield ray
    finally:
        ray.shutdown()


class Nodes:
    """The nodes that are alive, but those refused; how many stages run at once, and the most that one of them has."""

    def __init__(self, ray, say):
        self.ray, self.say, self.alive, self.refused, self.next_look = ray, say, {}, {}, 0.0
        self.slots, self.most = 1, {}
        self.look()

    def look(self):
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK_S
        now = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        for node in self.alive.keys() - now.keys() - self.refused.keys():
            self.say(f"node {self.name(node)} is lost; what ran there goes on elsewhere")
        self.alive = now
        fit = [node["Resources"] for name, node in now.items() if name not in self.refused]
        self.slots = max(1, int(sum(each.get("CPU", 0) for each in fit)))
        self.most = {name: max((each.get(name, 0) for each in fit), default=0) for name in ("CPU", "GPU", "memory")}
        if self.refused and not self.most["CPU"]:
            raise InputError(f"no node is left: {'; '.join(self.refused.values())}")

    def name(self, node, host=""):
        about = self.alive.get(node)
        return f"{about['NodeManagerHostname']} ({about['NodeManagerAddress']}, {node[:8]})" if about else f"{host} ({node[:8]})"

    def refuse(self, node, host, why):
        """No further stage goes to this node."""
        if node not in self.refused:
            self.refused[node] = f"node {self.name(node, host)} is left out: {why}"
            self.say(self.refused[node])
            self.next_look = 0.0
            self.look()

    def check(self, stage, gpus, memory):
        """InputError when no node has what a stage asks for: Ray would wait for one for ever."""
        for name, asked, unit in (("GPU", gpus, 1), ("memory", memory, 10**9)):
            if asked > self.most[name]:
                most = f"the largest node has {self.most[name] / unit:g}"
                raise InputError(f"tasks/{stage.task}.yaml: resources: {name} {asked / unit:g} is asked for, {most}")

    def options(self, cpus, gpus, memory):
        """What to tell Ray of a task. More cores than the largest node has are not asked for."""
        options = {"num_cpus": max(1, min(cpus, int(self.most["CPU"]))), "num_gpus": gpus}
        if memory:
            options["memory"] = memory
        if self.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        return options
