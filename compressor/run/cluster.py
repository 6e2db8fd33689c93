"""The jobs of a sweep on a Ray cluster: one at a time on every node, which it has for itself.

What a worker is sent, and does, is in ``worker.py``: the places and texts from which it compiles the sweep itself, and
the job, a dataclass of names and paths. Results are files below the sweep's directory, which all nodes must see.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import uuid4

from compressor.errors import SetupError
from compressor.model.files import write_text
from compressor.run.agenda import Agenda
from compressor.run.kept import Kept
from compressor.run.points import Failure, Job, PruneJob, Site
from compressor.run.worker import Order, look, order_of, perform


@contextmanager
def connected(address: str | None) -> Iterator[Cluster | None]:
    """Connect to a running cluster; yield None without an address.

    Raises:
        SetupError: Ray is not installed, or nothing answers at the address.
    """
    if address is None:
        yield None
        return
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise SetupError(
            "--ray needs the package ray, which is not installed", hint="pip install 'compressor-onnx[ray]'"
        ) from error
    variables = {name: os.environ[name] for name in PASSED if name in os.environ}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SetupError(
            f"--ray {address}: no Ray cluster answers: {str(error).partition(chr(10))[0]}",
            hint="start one with: ray start --head",
        ) from error
    try:
        yield Cluster(ray, address)
    finally:
        ray.shutdown()


PASSED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_OFFLINE")
"""Variables of the environment that workers are given, where they are set here."""
ATTEMPTS = 2
"""So often a job may lose its worker before it is the job that failed: one that takes all memory kills every worker."""


class WorkerLostError(ConnectionError):
    """The process that did a job is gone, or its node; ``node`` is None where only the process is."""

    def __init__(self, message: str, node: Node | None) -> None:
        super().__init__(message)
        self.node = node


@dataclass(frozen=True)
class Node:
    """A node: its id, what it is called, its CPUs, all of which a job takes, and whether it has a GPU."""

    id: str
    name: str
    cpus: float
    gpu: bool

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Node:
        """Return the node of an entry of ``ray.nodes()``."""
        resources = found["Resources"]
        return cls(found["NodeID"], found["NodeManagerHostname"], resources.get("CPU", 0.0), "GPU" in resources)


@dataclass(frozen=True)
class Cluster:
    """A connection.

    Attributes:
        ray: the module, connected.
        address: for messages.
    """

    ray: Any
    address: str

    def perform(self, site: Site, todo: Agenda) -> Iterator[tuple[str, Failure]]:
        """Do all jobs, each on a node of its own; yield the points that failed.

        Raises:
            SetupError: a node cannot work, or all of them went away.
        """
        nodes = self._nodes(site)
        order = order_of(site)
        attempts = Counter[str]()
        waiting: list[Job] = todo.jobs
        running: dict[Any, tuple[Job, Node]] = {}
        while waiting or running:
            for job in [job for job in waiting if self._is_due(job, waiting, running)]:
                busy = {node.id for _, node in running.values()}
                idle = next((node for node in nodes if node.id not in busy), None)
                if idle is None:
                    break
                waiting.remove(job)
                names = [one.name for one, _ in running.values()]
                sent = {**order, "job": job, "beside": site.neighbours(names)}
                site.conditions.tell(f"{_called(job)} on {idle.name}")
                running[self._submit(perform, idle, site, sent)] = (job, idle)
            if not running:
                raise SetupError(f"--ray {self.address}: no node is left", hint="the same command resumes")
            (ref,), _ = self.ray.wait(list(running), num_returns=1)
            job, node = running.pop(ref)
            try:
                lost = self._result(ref, node)
            except WorkerLostError as error:
                attempts[job.name] += 1
                nodes = [other for other in nodes if other != error.node]
                what = f"{node.name} went away" if error.node else f"the worker on {node.name} ended"
                if attempts[job.name] < ATTEMPTS:
                    site.conditions.tell(f"{what} during {_called(job)}, which is done again: {error}")
                    waiting.insert(0, job)
                    continue
                lost = _given_up(job, f"{what}, and it is not the first worker that this job lost: {error}")
            else:
                site.conditions.tell(f"{_called(job)} is done")
            lost = todo.spread(lost) if isinstance(job, PruneJob) else lost
            waiting = [one for one in waiting if one.name not in lost]
            yield from lost.items()

    @staticmethod
    def _is_due(job: Job, waiting: list[Job], running: Mapping[Any, tuple[Job, Node]]) -> bool:
        unfinished = {one.name for one in waiting} | {one.name for one, _ in running.values()}
        return not job.after & unfinished

    def _nodes(self, site: Site) -> list[Node]:
        """Return the nodes that can work; check that each sees the directory and has the same packages.

        Raises:
            SetupError: there is none, or one cannot work.
        """
        gpu = site.conditions.device.type == "cuda"
        nodes = [Node.of(found) for found in self.ray.nodes() if found["Alive"]]
        nodes = [node for node in nodes if node.cpus >= 1 and (node.gpu or not gpu)]
        if not nodes:
            raise SetupError(f"--ray {self.address}: no node of the cluster has {'a GPU' if gpu else 'a CPU'}")
        token = uuid4().hex
        file = site.work / f"seen-{token[:8]}.tmp"
        write_text(file, token)
        order = {**order_of(site), "file": str(file), "token": token}
        try:
            for node, ref in [(node, self._submit(look, node, site, order, whole=False)) for node in nodes]:
                try:
                    self._result(ref, node)
                except WorkerLostError as error:
                    raise SetupError(f"--ray {self.address}: node {node.name} does not work: {error}") from error
        finally:
            file.unlink()
        machines = {node.name for node in nodes}
        site.conditions.tell(
            f"{len(nodes)} nodes of the cluster do one job each at a time: {', '.join(sorted(machines))}"
        )
        if len(machines) < len(nodes):
            site.conditions.tell(
                "note: some of them share a machine: the latencies that they measure disturb each other"
            )
        return nodes

    def _submit(self, function: Any, node: Node, site: Site, order: Order, *, whole: bool = True) -> Any:
        strategies = import_module("ray.util.scheduling_strategies")
        there = strategies.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        cpus, gpus = (node.cpus, float(site.conditions.device.type == "cuda")) if whole else (0, 0)
        remote = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, scheduling_strategy=there)(function)
        return remote.remote(order)

    def _result(self, ref: Any, node: Node) -> dict[str, Failure]:
        """Return what a worker found.

        Raises:
            SetupError: the node's environment lacks something.
            WorkerLostError: the node, or its worker, went away.
        """
        errors = import_module("ray.exceptions")
        try:
            answer: dict[str, Any] = self.ray.get(ref)
        except errors.RayTaskError:
            raise
        except errors.RayError as error:
            alone = isinstance(error, errors.WorkerCrashedError | errors.OutOfMemoryError)
            stays = alone and any(one["Alive"] and one["NodeID"] == node.id for one in self.ray.nodes())
            raise WorkerLostError(str(error).partition("\n")[0], None if stays else node) from error
        if "setup" in answer:
            raise SetupError(f"node {node.name}: {answer['setup']}", hint=answer["hint"])
        return {name: Failure(**failure) for name, failure in answer["failures"].items()}


def _called(job: Job) -> str:
    return f"pruning for {', '.join(member.point for member in job.members)}" if isinstance(job, PruneJob) else job.name


def _given_up(job: Job, message: str) -> dict[str, Failure]:
    """Return the failure of a job that is not tried again; of a pruning, of all points that are not pruned for."""
    names = [job.name]
    if isinstance(job, PruneJob):
        names = [one.point for one in job.members if Kept(one.kept).load(one.fingerprint) is None]
    return dict.fromkeys(names, Failure("WorkerLostError", message, SetupError.exit_code))
