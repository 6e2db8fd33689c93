"""A Ray cluster of two nodes on this machine: ``python -m tests.slow.ray_cluster``; prints its address, ends with stdin."""

from __future__ import annotations

import sys
from importlib import import_module

MEMORY = 80_000_000
"""Bytes of every node's object store: jobs pass files, not objects."""

if __name__ == "__main__":
    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)  # noqa: T201 - its answer
    sys.stdin.read()
    cluster.shutdown()
