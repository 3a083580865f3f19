"""Which worker makes which chunk: nothing is left, nothing made twice, nobody waits in vain."""

from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.cli.shared_chunks import SharedChunks

EVERY = [f"{number:012d}" for number in range(40)]


def _run(chunks: SharedChunks, worker: int) -> list[str]:
    """A whole run of a worker: its plan, then what others leave."""
    plan = chunks.next_run(worker)
    chunks.begin(worker)
    made = [key for key in plan if chunks.take(worker, key)]
    while (key := chunks.take_another(worker)) is not None:
        made.append(key)
    for key in made:
        chunks.durable(worker, key)
    return made


def test_the_parts_of_workers_are_contiguous_and_equal() -> None:
    chunks = SharedChunks(EVERY[:7], EVERY, 3)
    assert [chunks.next_run(worker) for worker in range(3)] == [EVERY[:3], EVERY[3:5], EVERY[5:7]]


def test_a_worker_that_is_done_takes_the_last_chunk_of_another() -> None:
    chunks = SharedChunks(EVERY[:6], EVERY, 2)
    chunks.next_run(1)
    chunks.begin(1)
    assert _run(chunks, 0) == [*EVERY[:3], EVERY[5], EVERY[4], EVERY[3]]
    assert not chunks.take(1, EVERY[3])


def test_what_a_run_has_planned_is_not_taken_before_it_begins() -> None:
    """Dagster's plan of it would come after the chunk's event and call the chunk failed."""
    chunks = SharedChunks(EVERY[:4], EVERY, 2)
    chunks.next_run(1)
    assert _run(chunks, 0) == EVERY[:2]
    assert chunks.next_run(0) == []
    chunks.begin(1)
    assert chunks.next_run(0) == [EVERY[3]]


def test_a_run_is_contiguous_and_takes_the_rest_of_its_part() -> None:
    chunks = SharedChunks([EVERY[0], EVERY[1], EVERY[5]], EVERY, 1)
    assert chunks.next_run(0) == EVERY[:2]
    assert _run(chunks, 0) == [EVERY[0], EVERY[1], EVERY[5]]


def test_a_run_makes_no_more_chunks_than_a_run_may() -> None:
    chunks = SharedChunks(EVERY[:8], EVERY, 2, most=3)
    assert _run(chunks, 0) == EVERY[:3]
    assert _run(chunks, 0) == [EVERY[3], EVERY[7], EVERY[6]]


def test_the_chunks_of_a_dead_worker_are_made_by_another() -> None:
    chunks = SharedChunks(EVERY[:6], EVERY, 2)
    plan = chunks.next_run(1)
    chunks.begin(1)
    chunks.take(1, plan[0])
    assert chunks.lose(1) == [plan[0]]
    _run(chunks, 0)
    assert (chunks.left, chunks.is_over) == ([], True)


def test_the_chunk_that_a_run_has_failed_over_is_left() -> None:
    chunks = SharedChunks(EVERY[:6], EVERY, 2)
    plan = chunks.next_run(1)
    chunks.begin(1)
    chunks.take(1, plan[0])
    chunks.fail(1)
    _run(chunks, 0)
    assert (chunks.left, chunks.is_over) == ([plan[0]], True)


def test_a_step_that_is_tried_again_has_its_chunks() -> None:
    chunks = SharedChunks(EVERY[:2], EVERY, 1)
    plan = chunks.next_run(0)
    assert chunks.take(0, plan[0])
    chunks.durable(0, plan[0])
    assert chunks.take(0, plan[1])
    assert [chunks.take(0, key) for key in plan] == [True, True]


def test_it_is_not_over_while_a_chunk_may_come_back() -> None:
    chunks = SharedChunks(EVERY[:2], EVERY, 2)
    for worker in range(2):
        chunks.take(worker, chunks.next_run(worker)[0])
    assert not chunks.is_over
    chunks.lose(1)
    assert chunks.next_run(0) == [EVERY[1]]


@given(st.sets(st.sampled_from(EVERY), min_size=1), st.integers(1, 5), st.integers(1, 9) | st.none(), st.data())
def test_every_chunk_is_made_once_whoever_is_fast_and_whoever_dies(
    chosen: set[str], workers: int, most: int | None, data: st.DataObject
) -> None:
    chunks, made = SharedChunks(sorted(chosen), EVERY, workers, most), list[str]()
    alive = set(range(workers))
    while not chunks.is_over:
        worker = data.draw(st.sampled_from(sorted(alive)))
        plan = chunks.next_run(worker)
        chunks.begin(worker)
        if len(alive) > 1 and data.draw(st.booleans()):
            assert set(chunks.lose(worker)) <= set(plan)
            alive.discard(worker)
            continue
        taken = [key for key in plan if chunks.take(worker, key)]
        while data.draw(st.booleans()) and (key := chunks.take_another(worker)) is not None:
            taken.append(key)
        for key in taken:
            chunks.durable(worker, key)
        assert most is None or len(taken) <= most
        made += taken
    assert sorted(made) == sorted(chosen)
