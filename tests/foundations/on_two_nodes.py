"""Runs scripts on a Ray cluster of two nodes: ``on_two_nodes.py '[["SCRIPT", "--flag", ...], ...]'``."""

import json
import os
import subprocess
import sys

# its own half minute is too short on a busy machine
os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    for command in json.loads(sys.argv[1]):
        code = subprocess.run([sys.executable, *command, "--cluster", nodes.address], check=False).returncode
        if code:
            sys.exit(code)
