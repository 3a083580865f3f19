"""The assignment of a process of ``run NAME --gpus N`` whose command has died."""

from multiprocessing import Pipe

import pytest

from extraction_assets.cli.gpu_worker import RemoteAssignment


def _orphan() -> RemoteAssignment:
    here, there = Pipe()
    there.close()
    return RemoteAssignment(here)


def test_without_its_command_a_run_gets_no_chunk() -> None:
    with pytest.raises(KeyboardInterrupt):
        _orphan().take("000000000000")


def test_without_its_command_a_run_records_every_chunk_that_is_durable() -> None:
    """Two may be behind when it ends: the first one must not end that."""
    assignment, keys = _orphan(), ["000000000000", "000000000008"]
    assignment._taken.extend(keys)
    for key in keys:
        assignment.durable(key)
    assert not assignment._taken
