"""A Ray cluster in a network of its own. Each machine has process ids, scratch and a Dagster home of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from extraction_assets_tests import namespaces
from extraction_assets_tests.namespaces import Network, a_network, alone, named, noted

ADDRESS = "127.0.0.1:6379"

_LOOK = """
import json
import sys
import time
import urllib.request

count, token, seconds = sys.argv[1:]
asked = urllib.request.Request("http://127.0.0.1:8265/nodes?view=summary")
asked.add_header("Authorization", f"Bearer {token}")
told = ""
for _ in range(int(seconds) * 5):
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            told = json.load(answer)
        states = [node["raylet"].get("state") for node in told["data"]["summary"]]
    except (OSError, KeyError) as error:
        states, told = [], repr(error)
    if states.count("ALIVE") == int(count):
        sys.exit()
    time.sleep(0.2)
sys.exit(f"Ray did not have {count} nodes after {seconds} s: {told}")
"""
"""Waits until the dashboard, to which jobs are submitted, answers and knows of all nodes."""

_MEMORY = f"--object-store-memory={80 * 2**20}"
_NODE = ["--block", "--num-gpus=1", "--num-cpus=8", _MEMORY, "--disable-usage-stats", "--include-log-monitor=false"]
"""A GPU by its word alone: Ray counts it and sets CUDA_VISIBLE_DEVICES, whatever the machine has. What jobs print
stays in their logs: nobody waits at a terminal for what the log monitor hands on."""


class Machine:
    """The processes of a node of the cluster, which end together."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process, self._log = process, log

    def kill(self) -> None:
        """As a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def output(self) -> str:
        """What its processes have printed."""
        return self._log.read_text("utf-8", "replace")


class Cluster:
    """A network to start machines in; they have an environment and a working folder in common."""

    def __init__(self, network: Network, folder: Path, ray_folder: Path, environment: Mapping[str, str]) -> None:
        self.inside, self._folder, self._ray_folder = network.inside, folder, ray_folder
        self._network, self._environment = network.process, dict(environment)
        self._nodes: list[Machine] = []
        self._commands: dict[BaseProcess, Path] = {}
        """And their streams."""

    def node(self, name: str, hidden: Path) -> Machine:
        """A node of Ray, the head where it is the first; it has its own folder in the place of ``hidden``."""
        number = len(self._nodes)
        head = ["--head", "--dashboard-port=8265", f"--temp-dir={self._ray_folder}"]
        joined = head if number == 0 else [f"--address={ADDRESS}", f"--dashboard-agent-listen-port={52400 + number}"]
        where = f"--node-ip-address=127.0.0.{number + 1}"
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", *joined, where, *_NODE]
        mounted = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *start]
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                noted([*self.inside, *alone(network=False), *named(name, mounted)]),
                cwd=self._folder,
                env=self._environment_of(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        made = Machine(process, log)
        self._nodes.append(made)
        return made

    def wait_for_nodes(self) -> None:
        """Until the cluster takes jobs and has all of its nodes: a run that is launched before then fails."""
        asked = [str(len(self._nodes)), self._environment["RAY_AUTH_TOKEN"], "200"]
        look = [*self.inside, sys.executable, "-S", "-c", _LOOK, *asked]
        looked = subprocess.run(look, capture_output=True, text=True, check=False)
        assert looked.returncode == 0, looked.stderr + "".join(node.output for node in self._nodes)

    def command(self, name: str, module: str, *arguments: str) -> None:
        """A machine that does nothing but ``python -m MODULE ARGUMENTS``, which begins with everything imported."""
        streams = self._folder / f"{name}.streams"
        streams.mkdir()
        environment = self._environment_of(name)
        process = namespaces.start_module(
            name, module, arguments, self._folder, environment, streams, network=self._network
        )
        self._commands[process] = streams

    def _environment_of(self, machine: str) -> dict[str, str]:
        return {**self._environment, "EXTRACTION_HOME": str(self._folder / machine)}

    def add(self, variables: Mapping[str, str]) -> None:
        """To the environment of machines that are started later."""
        self._environment |= variables

    def outputs(self) -> Iterator[str]:
        """What machines have printed, and the logs of Ray, in which jobs print."""
        yield from (node.output for node in self._nodes)
        yield from (
            path.read_text("utf-8", "replace") for streams in self._commands.values() for path in streams.iterdir()
        )
        for path in self._ray_folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path.read_text("utf-8", "replace")

    def kill(self) -> None:
        for process in self._commands:
            process.kill()
            process.join()
        for node in self._nodes:
            node.kill()


@contextlib.contextmanager
def cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A network without machines yet; those that are started in it end with the block."""
    ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))  # paths of sockets have 107 characters, and pytest's are long
    try:
        with a_network() as network:
            made = Cluster(network, folder, ray_folder, environment)
            try:
                yield made
            finally:
                made.kill()
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
