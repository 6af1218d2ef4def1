"""Liveness: silence makes a worker suspect once, a heartbeat clears that, and nothing is kept of a worker that has ended."""

from __future__ import annotations

from headrace.transport.link import HEARTBEAT_INTERVAL
from headrace_engine.liveness import HUNG_AFTER, START_WITHIN, STARVED_FOR, SUSPECT_AFTER, Liveness


def looked_at(liveness: Liveness, start: float, end: float) -> list[int]:
    """Look each half second; return the suspects."""
    times = [start + step / 2 for step in range(int((end - start) * 2) + 1)]
    return [epoch for now in times for epoch in look(liveness, now)]


def look(liveness: Liveness, now: float) -> list[int]:
    """Look for suspects, and say that the next look is half a second later."""
    suspects = liveness.due(now)
    liveness.look_by(now + 0.5)
    return suspects


def test_two_missed_heartbeats_are_allowed() -> None:
    assert 2 * HEARTBEAT_INTERVAL < SUSPECT_AFTER < 3 * HEARTBEAT_INTERVAL


def test_a_worker_that_beats_is_never_suspect() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)

    for second in range(1, 60):
        assert liveness.beat(1, float(second)) is False
        assert liveness.due(second + HEARTBEAT_INTERVAL) == []


def test_a_silent_worker_becomes_suspect_once() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.joined(2, 1.0)

    assert looked_at(liveness, 0.0, SUSPECT_AFTER - 0.5) == []
    assert liveness.due(SUSPECT_AFTER) == [1]
    assert liveness.due(SUSPECT_AFTER + 0.1) == []
    assert liveness.due(SUSPECT_AFTER + 1.0) == [2]


def test_a_heartbeat_clears_a_suspicion_and_the_next_silence_is_a_new_one() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 10.0) == [1]

    assert liveness.beat(1, 10.0) is True
    assert liveness.beat(1, 10.5) is False
    assert looked_at(liveness, 11.0, 20.0) == [1]


def test_a_worker_that_left_is_neither_suspected_nor_heard() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.left(1)
    liveness.left(1)

    assert liveness.due(10.0) == []
    assert liveness.beat(1, 10.0) is False
    assert liveness.due(20.0) == []


def test_a_suspect_that_left_is_no_suspect_when_it_joins_again() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 10.0) == [1]
    liveness.left(1)
    liveness.joined(1, 10.0)

    assert liveness.beat(1, 10.5) is False
    assert looked_at(liveness, 11.0, 20.0) == [1]


def test_silence_is_told_in_seconds() -> None:
    liveness = Liveness()
    liveness.joined(1, 5.0)

    assert liveness.silence(1, 7.5) == 2.5
    assert liveness.silence(2, 7.5) == 0.0


def test_a_worker_that_stays_silent_is_hung_and_told_once() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)

    assert liveness.hung(HUNG_AFTER - 0.1) == []
    assert liveness.hung(HUNG_AFTER + 0.1) == [1]
    assert liveness.hung(HUNG_AFTER + 1.0) == []


def test_a_worker_that_is_heard_again_is_no_longer_hung() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.hung(HUNG_AFTER + 0.1)
    liveness.beat(1, 6.0)

    assert liveness.hung(7.0) == []
    assert liveness.hung(6.1 + HUNG_AFTER) == [1]


def test_after_all_processes_were_frozen_nobody_is_to_blame() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 1.0) == []
    liveness.joined(2, 1.0)

    assert liveness.due(1000.0) == []
    assert liveness.hung(1000.0) == []
    assert liveness.silence(1, 1000.0) == 1.0


def test_a_freeze_before_the_first_look_is_excused_too() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.expected({2: True}, 0.0)
    liveness.look_by(liveness.next_deadline())

    assert liveness.due(1000.0) == []
    assert liveness.hung(1000.0) == []


def test_a_worker_that_was_silent_before_the_freeze_is_still_found() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 4.0) == [1]

    assert liveness.due(1000.0) == []
    assert liveness.hung(1000.0) == []
    looked_at(liveness, 1000.5, 1001.5)
    assert liveness.hung(1001.5) == [1]


def test_a_heartbeat_that_came_while_the_broker_was_stopped_counts_from_when_it_was_read() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.due(1.0)
    liveness.beat(1, 1000.0)

    assert liveness.due(1000.0) == []
    assert liveness.silence(1, 1000.0) == 0.0


def test_a_worker_that_hangs_at_its_start_is_found() -> None:
    liveness = Liveness()
    for second in range(int(START_WITHIN)):
        liveness.expected({1: False}, float(second))
        assert looked_at(liveness, float(second), second + 0.5) == []
        assert liveness.hung(float(second)) == []

    assert liveness.hung(START_WITHIN) == [1]
    assert liveness.hung(START_WITHIN + 0.1) == []
    assert liveness.silence(1, START_WITHIN + 0.2) == START_WITHIN + 0.2


def test_a_report_that_came_while_the_broker_was_stopped_counts_from_when_it_was_read() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 0.5) == []
    liveness.left(1)
    liveness.expected({2: False}, 10.5)

    assert liveness.due(10.6) == []
    assert liveness.hung(10.7 + START_WITHIN) == [2]


def test_a_worker_that_hangs_while_its_broker_is_replaced_is_found_by_the_next() -> None:
    liveness = Liveness()
    liveness.expected({1: True, 2: True}, 0.0)
    liveness.joined(2, 0.1)
    liveness.expected({1: True, 2: True}, 0.5)

    assert liveness.hung(HUNG_AFTER - 0.1) == []
    assert liveness.hung(HUNG_AFTER + 0.05) == [1]


def test_a_worker_that_hangs_just_after_its_connection_was_cut_is_found_as_soon() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert looked_at(liveness, 0.0, 2.0) == []
    liveness.left(1)
    liveness.expected({1: False}, 2.5)

    assert liveness.hung(HUNG_AFTER - 0.1) == []
    assert liveness.hung(HUNG_AFTER + 0.1) == [1]


def test_a_worker_that_connects_again_is_watched_as_before() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.left(1)
    liveness.expected({1: False}, 0.5)
    liveness.joined(1, 0.6)

    assert liveness.hung(HUNG_AFTER + 0.5) == []
    assert liveness.hung(HUNG_AFTER + 0.7) == [1]


def test_a_process_that_has_ended_is_not_expected() -> None:
    liveness = Liveness()
    liveness.expected({1: True}, 0.0)
    liveness.expected({}, 1.0)

    assert liveness.hung(100.0) == []


def test_a_look_that_is_more_than_a_second_late_excuses_silence() -> None:
    punctual, away = Liveness(), Liveness()
    for liveness in (punctual, away):
        liveness.joined(1, 0.0)
        liveness.look_by(SUSPECT_AFTER)

    assert punctual.due(SUSPECT_AFTER + 1.0) == [1]
    assert away.due(SUSPECT_AFTER + 1.1) == []


# When to look.


def test_without_workers_there_is_no_deadline() -> None:
    liveness = Liveness()
    assert liveness.next_deadline() is None

    liveness.joined(1, 0.0)
    liveness.left(1)
    liveness.expected({}, 1.0)
    assert liveness.next_deadline() is None


def test_the_next_deadline_is_when_the_first_worker_becomes_suspect() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.joined(2, 0.5)
    assert liveness.next_deadline() == SUSPECT_AFTER

    liveness.beat(1, 1.0)
    assert liveness.next_deadline() == 0.5 + SUSPECT_AFTER


def test_while_a_worker_is_suspect_or_absent_looks_are_at_most_a_second_apart() -> None:
    suspect, absent = Liveness(), Liveness()
    suspect.joined(1, 0.0)
    absent.expected({1: True}, 0.0)
    assert suspect.due(SUSPECT_AFTER) == [1]

    assert suspect.next_deadline() == SUSPECT_AFTER + 1.0
    assert suspect.due(4.5) == []
    assert suspect.next_deadline() == HUNG_AFTER
    assert suspect.hung(HUNG_AFTER) == [1]

    assert absent.next_deadline() == 1.0
    assert absent.due(4.5) == []
    assert absent.next_deadline() == HUNG_AFTER
    assert absent.hung(HUNG_AFTER) == [1]


def test_a_hung_worker_has_no_further_deadline() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert liveness.due(HUNG_AFTER) == [1]
    assert liveness.hung(HUNG_AFTER) == [1]

    assert liveness.next_deadline() is None


# Nothing is kept of a worker that has ended: a new worker may have its epoch.


def test_a_worker_with_the_epoch_of_one_that_ended_gets_the_time_of_a_start() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.left(1)
    liveness.expected({}, 1.0)

    liveness.expected({1: False}, 2.0)
    assert liveness.hung(2.0 + HUNG_AFTER + 0.1) == []
    assert liveness.hung(2.0 + START_WITHIN - 0.1) == []
    assert liveness.hung(2.0 + START_WITHIN + 0.1) == [1]


def test_a_worker_with_the_epoch_of_a_hung_one_that_ended_is_found_when_it_hangs() -> None:
    liveness = Liveness()
    liveness.expected({1: True}, 0.0)
    assert liveness.hung(HUNG_AFTER + 0.1) == [1]
    liveness.expected({}, 6.0)

    liveness.expected({1: True}, 7.0)
    assert liveness.hung(7.0 + HUNG_AFTER - 0.1) == []
    assert liveness.hung(7.0 + HUNG_AFTER + 0.1) == [1]


def test_a_hung_worker_whose_connection_ends_before_its_process_is_told_once() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert liveness.hung(HUNG_AFTER) == [1]

    liveness.left(1)
    liveness.expected({1: True}, HUNG_AFTER)
    assert liveness.hung(HUNG_AFTER + 0.1) == []


def test_a_hung_worker_that_connects_again_is_found_when_it_hangs_again() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert liveness.hung(HUNG_AFTER + 0.1) == [1]
    liveness.left(1)

    liveness.joined(1, 10.0)
    assert liveness.hung(10.0 + HUNG_AFTER - 0.1) == []
    assert liveness.hung(10.0 + HUNG_AFTER + 0.1) == [1]


def test_a_hung_worker_that_is_reported_as_running_is_told_once() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.expected({1: True, 2: True}, 0.0)
    assert liveness.hung(HUNG_AFTER + 0.1) == [1, 2]

    liveness.expected({1: True, 2: True}, 6.0)
    assert liveness.hung(6.5) == []


def test_the_silence_of_a_worker_counts_from_its_last_hello() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    liveness.left(1)
    liveness.expected({1: True}, 1.0)
    liveness.joined(1, 2.0)

    assert liveness.silence(1, 2.5) == 0.5
    liveness.left(1)
    assert liveness.silence(1, 3.0) == 0.0, "nobody expects it"


def test_the_figures_are_those_of_the_documentation() -> None:
    assert (HEARTBEAT_INTERVAL, SUSPECT_AFTER, HUNG_AFTER, START_WITHIN) == (1.0, 2.5, 5.0, 30.0)


def hung_at(liveness: Liveness, epoch: int, start: float, share: float, until: float = 200.0) -> float | None:
    """Look each half second, while a worker waits for a processor in ``share`` of the time; return when it counts as hung."""
    for step in range(int((until - start) * 2)):
        now = start + step / 2
        look(liveness, now)
        if epoch in liveness.in_doubt():
            liveness.waited(epoch, 100.0 + share * (now - start))
        if epoch in liveness.hung(now):
            return now
    return None


def test_the_time_in_which_a_silent_worker_waits_for_a_processor_does_not_count() -> None:
    for share, expected in ((0.0, HUNG_AFTER), (0.5, SUSPECT_AFTER + 5.0), (1.0, HUNG_AFTER + STARVED_FOR)):
        liveness = Liveness()
        liveness.joined(1, 0.0)
        found = hung_at(liveness, 1, 0.0, share)

        assert found is not None
        assert expected <= found <= expected + 0.5, share


def test_a_worker_that_waits_for_a_processor_while_it_starts_has_longer_to_say_hello() -> None:
    liveness = Liveness()
    liveness.expected({1: False}, 0.0)

    assert hung_at(liveness, 1, 0.0, 0.5) == 2 * START_WITHIN
    assert liveness.silence(1, 2 * START_WITHIN) == START_WITHIN


def test_a_heartbeat_ends_the_excuse_of_a_worker_that_waited_for_a_processor() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    assert hung_at(liveness, 1, 0.0, 1.0, until=20.0) is None
    liveness.beat(1, 20.0)

    assert hung_at(liveness, 1, 20.0, 0.0) == 20.0 + HUNG_AFTER


def test_where_the_kernel_tells_no_waits_each_silence_counts() -> None:
    liveness = Liveness()
    liveness.joined(1, 0.0)
    for step in range(int(HUNG_AFTER * 2) + 1):
        look(liveness, step / 2)
        liveness.waited(1, None)

    assert liveness.hung(HUNG_AFTER) == [1]
    assert liveness.in_doubt() == []
