"""A Ray cluster in a network of its own. Each machine has process ids, scratch and a Dagster home of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from extraction_assets_tests.namespaces import a_network, alone, named

ADDRESS = "127.0.0.1:6379"

_MEMORY = f"--object-store-memory={80 * 2**20}"
_NODE = ["--block", "--num-gpus=1", "--num-cpus=8", _MEMORY, "--disable-usage-stats", "--include-log-monitor=false"]
"""A GPU by its word alone: Ray counts it and sets CUDA_VISIBLE_DEVICES, whatever the machine has. What jobs print
stays in their logs: nobody waits at a terminal for what the log monitor hands on."""


class Machine:
    """Processes on one machine of the cluster, which end together."""

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

    def __init__(self, inside: list[str], folder: Path, ray_folder: Path, environment: Mapping[str, str]) -> None:
        self.inside, self._folder, self._ray_folder = inside, folder, ray_folder
        self._environment = dict(environment)
        self._machines: list[Machine] = []

    def node(self, name: str, hidden: Path) -> Machine:
        """A node of Ray, the head where it is the first; it has its own folder in the place of ``hidden``."""
        number = len(self._machines)
        head = ["--head", "--dashboard-port=8265", f"--temp-dir={self._ray_folder}"]
        joined = head if number == 0 else [f"--address={ADDRESS}", f"--dashboard-agent-listen-port={52400 + number}"]
        where = f"--node-ip-address=127.0.0.{number + 1}"
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", *joined, where, *_NODE]
        mounted = ["sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), *start]
        return self.machine(name, mounted)

    def machine(self, name: str, command: list[str]) -> Machine:
        """A machine that does one thing."""
        log = self._folder / f"{name}.log"
        environment = {**self._environment, "EXTRACTION_HOME": str(self._folder / name)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.inside, *alone(network=False), *named(name, command)],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        made = Machine(process, log)
        self._machines.append(made)
        return made

    def add(self, variables: Mapping[str, str]) -> None:
        """To the environment of machines that are started later."""
        self._environment |= variables

    def outputs(self) -> Iterator[str]:
        """What machines have printed, and the logs of Ray, in which jobs print."""
        yield from (machine.output for machine in self._machines)
        for path in self._ray_folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path.read_text("utf-8", "replace")

    def kill(self) -> None:
        for machine in self._machines:
            machine.kill()


@contextlib.contextmanager
def cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A network without machines yet; those that are started in it end with the block."""
    ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))  # paths of sockets have 107 characters, and pytest's are long
    try:
        with a_network() as inside:
            made = Cluster(inside, folder, ray_folder, environment)
            try:
                yield made
            finally:
                made.kill()
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
