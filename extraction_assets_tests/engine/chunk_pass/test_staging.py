"""Copies to the host and the stages' times, on a CPU; test_cuda has those of a GPU."""

import time

import pytest
import torch

from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.chunk_pass.staging import HostStaging
from extraction_assets.engine.selection.sparse import dense_to_sparse
from extraction_assets_tests.engine.build import assert_same

CPU = torch.device("cpu")


def test_on_a_cpu_nothing_is_copied() -> None:
    staging, tensor = HostStaging(CPU), torch.arange(5)
    assert staging.copy(tensor) is tensor
    staging.wait()


def test_fields_are_copied_and_the_rest_is_left() -> None:
    features = dense_to_sparse(torch.tensor([[[0.0, 2.0], [3.0, 0.0]]]))
    assert_same(HostStaging(CPU).copy_fields(features), features)


def test_a_buffer_has_the_asked_shape_and_takes_parts_of_what_is_copied() -> None:
    staging = HostStaging(CPU)
    buffer = staging.buffer(3, 2, dtype=torch.bfloat16)
    assert (tuple(buffer.shape), buffer.dtype, buffer.device.type) == ((3, 2), torch.bfloat16, "cpu")
    buffer.zero_()
    source = torch.ones(2, 2, dtype=torch.bfloat16)
    staging.copy_into(buffer[1:], source)
    source.zero_()  # a buffer holds a copy
    assert buffer.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_seconds_of_a_stage_add_up_and_stages_are_kept_apart() -> None:
    clock = StageClock(CPU)
    for name, seconds in [("encode", 0.02), ("select", 0.01), ("encode", 0.02)]:
        with clock.stage(name):
            time.sleep(seconds)
    found = clock.seconds()
    assert found.keys() == {"encode", "select"}
    assert 0.04 <= found["encode"] < 1
    assert 0.01 <= found["select"] < 1


def test_time_between_stages_is_not_counted() -> None:
    clock = StageClock(CPU)
    with clock.stage("forward"):
        pass
    time.sleep(0.05)
    assert clock.seconds()["forward"] < 0.05


def test_asking_twice_counts_nothing_twice() -> None:
    clock = StageClock(CPU)
    with clock.stage("forward"):
        time.sleep(0.01)
    assert clock.seconds() == clock.seconds()


def test_a_clock_without_stages_has_no_seconds() -> None:
    assert StageClock(CPU).seconds() == {}


def test_an_error_in_a_stage_passes_through() -> None:
    with pytest.raises(KeyError), StageClock(CPU).stage("encode"):
        raise KeyError
