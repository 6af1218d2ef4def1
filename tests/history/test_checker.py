"""The checker finds each broken promise, and nothing in a history without one."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.process.history import HistoryEvent
from tests.history.model import ProcessHistory
from tests.history.story import CLIENT, EPOCH, OTHER_EPOCH, OTHER_WORKER, WORKER, Story, call, chunk, cut, kill, note


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_good_history_has_no_violations(story: Story) -> None:
    assert story.violations() == []


# Ends.


def test_a_run_without_an_end_is_found(story: Story) -> None:
    del story.client[7]

    assert story.violations() == ["no end"]


def test_the_runs_of_a_client_that_was_killed_need_no_end(story: Story) -> None:
    del story.client[5:]
    del story.caller[2:]
    story.faults = [kill(CLIENT, 2.2)]

    assert story.violations() == []


def test_a_second_end_is_found(story: Story) -> None:
    story.client.append(story.client[7])

    assert story.violations() == ["several ends"]


def test_a_caller_that_learns_of_no_outcome_is_found(story: Story) -> None:
    del story.caller[3]

    assert story.violations() == ["no outcome"]


@pytest.mark.parametrize("event", ["saw", "read", "first"])
def test_whatever_a_caller_sees_after_the_outcome_is_found(story: Story, event: str) -> None:
    story.caller.append(note(3.0, event, text="a b c ", kind="done"))

    assert story.violations() == ["something after the outcome"]


# Text.


def test_a_gap_is_found(story: Story) -> None:
    story.client[5] = chunk(2.3, "received chunk", 3, 1, "c ")

    assert story.violations() == ["gap"]


def test_a_chunk_that_came_twice_is_found(story: Story) -> None:
    story.client.insert(5, story.client[4])

    assert "gap" in story.violations()


def test_text_that_did_not_arrive_is_found(story: Story) -> None:
    story.client[7] = note(2.6, "end", kind="Finished", text="a b ")

    assert "text changed" in story.violations()


@pytest.mark.parametrize(("attempt", "epoch"), [(1, EPOCH + 1), (2, EPOCH)])
def test_late_frames_that_were_taken_are_found(story: Story, attempt: int, epoch: int) -> None:
    story.client[5] = chunk(2.3, "received chunk", 2, 1, "c ", attempt, epoch)

    assert story.violations() == ["text changed"]


def test_late_frames_that_were_dropped_are_fine(story: Story) -> None:
    story.client.insert(5, chunk(2.2, "received chunk", 2, 1, "z ", epoch=OTHER_EPOCH))

    assert story.violations() == []


def test_text_that_the_provider_did_not_send_is_found(story: Story) -> None:
    story.calls = [call(sent_text="a b d ")]

    assert story.violations() == ["text not the provider's"]


def test_success_with_a_part_of_the_text_is_found(story: Story) -> None:
    story.calls = [call(sent_text="a b c d ")]

    assert story.violations() == ["finished too early"]


def test_success_of_a_response_that_was_cut_is_found(story: Story) -> None:
    story.calls = [call(is_complete=False)]

    assert story.violations() == ["finished too early"]


def test_an_aborted_run_may_have_less_than_arrived(story: Story) -> None:
    story.client[5:] = [
        note(2.2, "sent abort", attempt=1, kind="close"),
        chunk(2.3, "received chunk", 2, 1, "c "),
        note(2.5, "end", kind="Aborted", text="a b "),
    ]
    story.caller[2:] = [note(2.7, "read", text="a "), note(2.7, "saw", kind="aborted", text="a b ")]

    assert story.violations() == []


def test_a_reader_that_got_less_than_its_result_holds_is_found(story: Story) -> None:
    story.caller[2] = note(2.7, "read", text="a b ")

    assert story.violations() == ["read something else"]


def test_a_caller_that_is_told_another_text_than_arrived_is_found(story: Story) -> None:
    story.caller[2:] = [note(2.7, "read", text="x "), note(2.7, "saw", kind="done", text="x ")]

    assert story.violations() == ["told something else"]


# The provider.


def test_a_call_after_something_was_delivered_is_found(story: Story) -> None:
    story.calls.append(call(arrived_at=2.2))

    assert story.violations() == ["called again after delivery"]


def test_a_call_before_anything_was_delivered_is_fine(story: Story) -> None:
    story.calls.insert(0, call(arrived_at=1.65, sent_text="a ", is_complete=False))

    assert story.violations() == []


def test_too_many_calls_are_found(story: Story) -> None:
    story.calls = [call(arrived_at=1.65, sent_text="", is_complete=False)] * 4 + story.calls

    assert story.violations() == ["too many calls"]
    assert story.violations(max_calls=5) == []


def test_a_call_that_never_ends_is_found(story: Story) -> None:
    story.calls = [call(ended_at=None)]

    assert story.violations() == ["open at the end"]


def aborted(story: Story, closed_at: float) -> None:
    story.client[5:] = [
        note(2.2, "sent abort", attempt=1, kind="close"),
        note(2.4, "end", kind="Aborted", text="a b "),
    ]
    story.caller[2:] = [note(2.7, "read", text="a b "), note(2.7, "saw", kind="aborted", text="a b ")]
    story.calls = [call(ended_at=closed_at, is_complete=False)]


def test_a_connection_that_stays_open_after_its_abort_is_found(story: Story) -> None:
    aborted(story, closed_at=4.3)

    assert story.violations() == ["not closed after its abort"]
    assert story.violations(close_within=3.0) == []


def test_a_worker_that_was_stopped_may_close_late(story: Story) -> None:
    aborted(story, closed_at=9.0)
    story.faults = [kill(WORKER, 2.0, "SIGSTOP")]

    assert story.violations() == []


def test_a_connection_that_stays_open_after_its_clients_death_is_found(story: Story) -> None:
    del story.client[5:]
    del story.caller[2:]
    story.faults = [kill(CLIENT, 2.2)]
    story.calls = [call(ended_at=4.3, is_complete=False)]

    assert story.violations() == ["not closed after its client's death"]


# Workers.


def test_a_chunk_out_of_sequence_is_found_where_it_was_sent(story: Story) -> None:
    del story.worker[2]

    assert "sent out of sequence" in story.violations()


def test_a_chunk_after_the_terminal_is_found(story: Story) -> None:
    story.worker.append(chunk(2.9, "sent chunk", 3, 1, "d "))

    assert story.violations() == ["sent after the terminal"]


def test_a_second_terminal_is_found(story: Story) -> None:
    story.worker.append(note(2.9, "sent aborted", attempt=1, sequence=3))

    assert story.violations() == ["several terminals"]


def test_a_terminal_that_miscounts_is_found(story: Story) -> None:
    story.worker[-1] = note(2.4, "sent finished", attempt=1, sequence=4)

    assert story.violations() == ["terminal miscounts"]


@pytest.mark.parametrize(
    "limits", [{"sequence_limit": 2, "character_limit": 100}, {"sequence_limit": 9, "character_limit": 5}]
)
def test_a_worker_that_sends_beyond_its_credit_is_found(story: Story, limits: dict[str, Any]) -> None:
    story.worker[0] = note(1.5, "received run", attempt=1, **limits)

    assert story.violations() == ["sent beyond its credit"]


def test_credit_may_come_later(story: Story) -> None:
    story.worker[0] = note(1.5, "received run", attempt=1, sequence_limit=2, character_limit=5)
    story.worker.insert(3, note(2.1, "received credit", attempt=1, sequence_limit=3, character_limit=6))

    assert story.violations() == []


def test_a_run_that_a_worker_never_lets_go_of_is_found(story: Story) -> None:
    del story.worker[4]

    assert story.violations() == ["never let go"]


@pytest.mark.parametrize("who", ["the worker", "the engine"])
def test_a_worker_that_was_killed_lets_go_of_nothing(story: Story, who: str) -> None:
    del story.worker[4]
    story.faults = [kill(WORKER if who == "the worker" else 41, 2.4)]

    assert story.violations() == []


def test_a_worker_that_crashed_lets_go_of_nothing(story: Story) -> None:
    del story.worker[4]
    story.supervisor = [HistoryEvent(at=2.4, event="ended", epoch=EPOCH, reason="signal 11")]

    assert story.violations() == []


def test_too_many_runs_on_a_worker_are_found(story: Story) -> None:
    story.worker.insert(2, note(1.7, "start", "sp_other", attempt=1))
    story.worker.insert(3, note(1.8, "let go", "sp_other", attempt=1))

    assert story.violations(max_runs_per_worker=1) == ["too many runs on a worker"]
    assert story.violations(max_runs_per_worker=1, overshoot=1) == []


def on_another_worker(story: Story, start: float) -> None:
    events = [note(start, "start", attempt=2), note(start + 0.5, "let go", attempt=2)]
    story.others = [ProcessHistory("worker", OTHER_WORKER, OTHER_EPOCH, events)]


def test_a_run_on_two_workers_at_once_is_found(story: Story) -> None:
    on_another_worker(story, 2.3)

    assert story.violations() == ["on two workers at once"]


def test_a_run_may_go_on_elsewhere_once_its_worker_is_dead(story: Story) -> None:
    del story.worker[4:]
    story.faults = [kill(WORKER, 2.25)]
    on_another_worker(story, 2.3)

    assert story.violations() == []


def test_a_run_may_go_on_elsewhere_once_its_connection_is_cut_and_its_worker_has_a_moment_to_notice(
    story: Story,
) -> None:
    story.faults = [cut(2.25)]
    on_another_worker(story, 2.3)

    assert story.violations() == []
    assert story.violations(close_within=0.1) == ["on two workers at once"]


def test_a_cut_that_came_later_is_no_reason_to_be_on_two_workers(story: Story) -> None:
    story.faults = [cut(2.35)]
    on_another_worker(story, 2.3)

    assert story.violations() == ["on two workers at once"]


# The broker.


def test_a_second_lease_for_a_run_is_found(story: Story) -> None:
    story.broker.insert(2, note(1.3, "sent grant", attempt=2, epoch=OTHER_EPOCH, peer="c"))
    story.broker.append(note(3.0, "received release", attempt=2, peer="c"))

    assert story.violations() == ["granted twice"]


def test_too_many_leases_on_a_worker_are_found(story: Story) -> None:
    story.broker.insert(2, note(1.3, "sent grant", "sp_other", attempt=1, epoch=EPOCH, peer="c"))
    story.broker.append(note(3.0, "received release", "sp_other", attempt=1, peer="c"))

    assert story.violations(max_runs_per_worker=1) == ["too many leases on a worker"]


def test_a_lease_on_a_worker_that_is_gone_is_found(story: Story) -> None:
    story.broker.insert(0, HistoryEvent(at=0.1, event="left", kind="worker", epoch=EPOCH, peer="w"))

    assert story.violations() == ["granted on a worker that is gone"]


def test_a_lease_that_is_never_returned_is_found(story: Story) -> None:
    del story.broker[2]

    assert story.violations() == ["lease never returned"]


@pytest.mark.parametrize(
    "left",
    [
        HistoryEvent(at=2.0, event="left", kind="client", peer="c"),
        HistoryEvent(at=2.0, event="left", kind="worker", peer="w", epoch=EPOCH),
    ],
    ids=["client", "worker"],
)
def test_a_lease_ends_with_its_client_or_its_worker(story: Story, left: HistoryEvent) -> None:
    story.broker[2] = left

    assert story.violations() == []


def test_a_lease_of_a_broker_before_counts(story: Story) -> None:
    story.broker.insert(0, note(0.9, "received hold", "sp_other", attempt=1, epoch=EPOCH, peer="d"))
    story.broker.append(HistoryEvent(at=3.0, event="left", kind="client", peer="d"))

    assert story.violations(max_runs_per_worker=1) == ["too many leases on a worker"]


def test_a_grant_that_crosses_its_release_is_fine(story: Story) -> None:
    """The broker writes a grant down when it leaves: after what it has heard in the same turn."""
    story.broker[1], story.broker[2] = story.broker[2], story.broker[1]

    assert story.violations() == []
