"""A real Ray cluster for a test: two nodes on loopback, each with its own raylet and its own workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.leftovers import processes_with
from tests.waiting import wait_until

NODES = 2
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_prestart_worker_first_driver": "0",  # each worker that is started takes two seconds of a processor
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_niceness": "0",  # else its workers get no processor while other tests run
}
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1"]
_NODE = ["--num-cpus=2", '--resources={"engine": 1}', f"--object-store-memory={80 * 1024 * 1024}"]
_HEAD = ["--head", "--port=0", "--include-dashboard=false", "--include-log-monitor=false"]


class RayCluster:
    """A cluster. Each node has the resource ``engine`` once, so that each has one actor that asks for it.

    ``ray stop`` would end the Ray of other tests and programs too. So ``ray start`` stays in the foreground, and each node
    is a process group of its own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        # What its processes make is in its folder, and the name of the folder shows whose they are.
        self.environment = {**os.environ, **_QUIET, **environment, "TMPDIR": str(folder)}
        self.address = ""
        self._folder = folder
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the nodes, and wait until the first one answers."""
        self._start_node([*_HEAD, f"--temp-dir={self._folder / 'ray'}"])
        self.address = wait_until(self._told_address, timeout=60, what="the head of the cluster has an address")
        for _ in range(NODES - 1):
            self._start_node([f"--address={self.address}"])

    def stop(self) -> None:
        """End all processes of the cluster. The engines of its actors end by themselves, soon after their actor."""
        for node in reversed(self._nodes):
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        wait_until(lambda: not processes_with(str(self._folder)), what="all processes of the cluster have ended")

    def log(self) -> str:
        """Return the end of what the nodes have printed."""
        return "".join(path.read_text(errors="replace")[-2000:] for path in sorted(self._folder.glob("node-*.log")))

    def _start_node(self, options: list[str]) -> None:
        with (self._folder / f"node-{len(self._nodes)}.log").open("wb") as log:
            self._nodes.append(
                subprocess.Popen(
                    [*_START, *_NODE, *options],
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _told_address(self) -> str:
        assert self._nodes[0].poll() is None, self.log()
        with suppress(FileNotFoundError):
            return (self._folder / "ray" / "ray_current_cluster").read_text().strip()
        return ""


@contextmanager
def running_cluster(environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """Run a cluster whose processes have these variables, in a folder of its own. Skips the test without Ray."""
    pytest.importorskip("ray", reason="Ray is not installed; scripts/test installs it where there is a wheel of it")
    folder = Path(tempfile.mkdtemp(prefix="r"))  # Ray's sockets need a short path
    cluster = RayCluster(folder, environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
