"""The window of a batch job grows while rows pass faster for it, and shrinks to what runs where rows wait all the time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headrace.batch.driver.window import GROUP, Window

STEP = 0.1


def size_after(
    seconds: float, most: int, *, latency: float, places: float = math.inf, most_rate: float = math.inf
) -> list[int]:
    """Return the sizes over time with an engine that runs ``places`` rows at once, and ends ``most_rate`` rows a second."""
    window = Window(most)
    sizes: list[int] = []
    for step in range(int(seconds / STEP)):
        running = min(window.size, places)
        rate = min(running / latency, most_rate)
        window.observe(step * STEP, round(rate * STEP), int(running), int(window.size - running))
        sizes.append(window.size)
    return sizes


def test_with_room_everywhere_the_window_is_all_of_it_within_seconds() -> None:
    assert size_after(3, 1024, latency=0.1)[-1] == 1024
    assert size_after(6, 1024, latency=30.0)[-1] == 1024


def test_rows_that_wait_in_the_engine_all_the_time_are_at_most_about_a_group() -> None:
    sizes = size_after(20, 1024, latency=0.5, places=200)
    assert max(sizes[-50:]) <= 200 + GROUP
    assert min(sizes[-50:]) >= 200


def test_a_window_that_makes_nothing_faster_is_given_up_and_tried_ever_more_rarely() -> None:
    sizes = size_after(120, 1024, latency=0.05, most_rate=2000)
    late = sizes[len(sizes) // 2 :]
    assert sum(size > 256 for size in late) < len(late) / 20
    assert min(late) >= 64


def test_a_job_that_is_held_back_by_its_input_keeps_its_window() -> None:
    window = Window(1024)
    for step in range(100):
        window.observe(step * STEP, 2, 5, 0)
    assert window.size == 64


def test_a_refusal_leaves_what_runs_and_a_group() -> None:
    window = Window(1024)
    for step in range(100):
        window.observe(step * STEP, 100 * window.size, window.size, 0)
    window.shrink(40)
    assert window.size == 40 + GROUP


@given(
    most=st.integers(1, 2000),
    turns=st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000)), max_size=50
    ),
)
def test_the_window_stays_within_its_bounds(most: int, turns: list[tuple[float, int, int, int]]) -> None:
    window = Window(most)
    now = 0.0
    for wait, ended, running, waiting in turns:
        now += wait
        window.observe(now, ended, running, waiting)
        assert 1 <= window.size <= most
