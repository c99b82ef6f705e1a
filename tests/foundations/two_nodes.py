"""Two Ray nodes on loopback, one of which is taken away in mid-run. ``two_nodes.py FOLDER`` in a network namespace."""

import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from ray.cluster_utils import Cluster  # noqa: E402
from working_cases import work  # noqa: E402

from ctrlgenaug import cluster, steps  # noqa: E402

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    cluster.choose(nodes.address)

    def take_away():
        while len(list(folder.glob("*.bin"))) < 4:
            time.sleep(0.1)
        nodes.remove_node(second, allow_graceful=False)
        (folder / "taken").touch()

    threading.Thread(target=take_away, daemon=True).start()
    cases = [*(f"case{i:02d}" for i in range(24)), "kills"]
    arguments = [(str(folder), case, 0.5) for case in cases]
    outcome = steps.for_each_case(work, cases, arguments, num_workers=2)
    print(len(outcome.results), outcome.failures, flush=True)
    sys.exit(outcome.exit_code())
