"""What the state machine of batches promises: no row is paid for twice, and each row gets exactly one record."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.wire.batch_messages import BatchApiName, BatchEnd
from tests.client.batch.provider_batches.simulated_job import Disk, FakeProvider, KilledError, SimulatedJob, run_killed

APIS: list[BatchApiName] = ["openai", "anthropic", "google", "background"]


@pytest.mark.parametrize("api", APIS)
def test_all_rows_are_sent_once_and_recorded(api: BatchApiName) -> None:
    disk, provider = Disk(api, 7), FakeProvider(api)
    SimulatedJob(disk, provider).run()
    assert disk.records == dict.fromkeys(range(1, 8), "done")
    assert set(provider.paid.values()) == {1}
    assert disk.parts == {}


@pytest.mark.parametrize("api", APIS)
def test_a_kill_between_any_two_steps_pays_no_row_twice(api: BatchApiName) -> None:
    for kill_after in itertools.count():
        disk, provider = Disk(api, 4), FakeProvider(api)
        try:
            SimulatedJob(disk, provider, kill_after).run()
        except KilledError:
            SimulatedJob(disk, provider).run()
        else:
            assert kill_after > 20
            break
        assert sorted(disk.records) == [1, 2, 3, 4], kill_after
        assert max(provider.paid.values(), default=1) == 1, kill_after
        unknown = {outcome for outcome in disk.records.values() if outcome != "done"}
        assert not unknown or (api == "background" and unknown == {"maybe_sent"}), kill_after


@settings(max_examples=150, deadline=None)
@given(
    api=st.sampled_from(APIS),
    rows=st.integers(1, 8),
    kills=st.lists(st.integers(0, 60), max_size=6),
    lost=st.sets(st.integers(1, 6), max_size=3),
    refused=st.sets(st.integers(1, 6), max_size=2),
    bad=st.sets(st.integers(1, 8), max_size=2),
    ends=st.dictionaries(st.integers(1, 6), st.sampled_from(["expired", "cancelled"]), max_size=2),
    strangers=st.integers(0, 2),
)
def test_any_kills_and_faults_pay_no_row_twice(
    api: BatchApiName,
    rows: int,
    kills: list[int],
    lost: set[int],
    refused: set[int],
    bad: set[int],
    ends: dict[int, BatchEnd],
    strangers: int,
) -> None:
    disk, provider = Disk(api, rows), FakeProvider(api)
    provider.lost_replies, provider.refused, provider.ends = lost, refused, ends
    provider.bad_rows = bad if api == "openai" else set()
    for _ in range(strangers):  # batches of other programs, which look like one of ours
        provider.add("foreign", [101, 102, 103][: min(rows, 3)], disk.wall)
    run_killed(disk, provider, kills)

    ours = {number: count for number, count in provider.paid.items() if number <= 100}
    assert sorted(disk.records) == list(range(1, rows + 1))
    assert all(count == 1 for count in ours.values())
    assert {number for number, outcome in disk.records.items() if outcome == "done"} <= set(ours)
    assert disk.parts == {}
    for number in provider.bad_rows & set(disk.records):
        assert disk.records[number] == "bad_line"


def test_rows_that_the_provider_refuses_fail_and_the_others_are_sent_without_them() -> None:
    disk, provider = Disk("openai", 3), FakeProvider("openai")
    provider.bad_rows = {2}
    SimulatedJob(disk, provider).run()
    assert disk.records == {1: "done", 2: "bad_line", 3: "done"}
    assert provider.paid == {1: 1, 3: 1}


def test_what_an_expired_batch_has_run_is_kept() -> None:
    disk, provider = Disk("openai", 2), FakeProvider("openai")
    provider.ends = {1: "expired"}
    SimulatedJob(disk, provider).run()
    assert disk.records == {1: "done", 2: "expired"}


@pytest.mark.parametrize("api", APIS)
def test_a_job_that_is_cancelled_keeps_what_was_run_and_gives_back_the_rest(api: BatchApiName) -> None:
    for cancel_at in range(12):
        disk, provider = Disk(api, 4), FakeProvider(api)
        job = SimulatedJob(disk, provider)
        job.run(cancel_at)
        assert disk.parts == {}, cancel_at
        assert sorted({*disk.records, *job.given_back}) == [1, 2, 3, 4], cancel_at
        assert not {*disk.records} & job.given_back, cancel_at
        if api != "background":
            assert set(provider.paid) == set(disk.records), cancel_at


def test_a_batch_of_somebody_else_is_not_taken_for_ours() -> None:
    disk, provider = Disk("anthropic", 3), FakeProvider("anthropic")
    stranger = provider.add("foreign", [101, 102, 103], disk.wall)
    provider.lost_replies = {1}
    SimulatedJob(disk, provider).run()
    assert disk.records == dict.fromkeys((1, 2, 3), "done")
    assert provider.creations == 1
    assert stranger.end == "completed"


def test_a_row_whose_background_run_may_have_begun_fails_and_is_not_sent_again() -> None:
    disk, provider = Disk("background", 2), FakeProvider("background")
    provider.lost_replies = {1}
    SimulatedJob(disk, provider).run()
    assert disk.records == {1: "maybe_sent", 2: "done"}
    assert provider.creations == 2


def test_after_a_kill_only_few_background_runs_are_not_known_of() -> None:
    disk, provider = Disk("background", 100), FakeProvider("background")
    with pytest.raises(KilledError):
        SimulatedJob(disk, provider, 250).run()
    SimulatedJob(disk, provider).run()
    unknown = [number for number, outcome in disk.records.items() if outcome == "maybe_sent"]
    assert 0 < len(unknown) <= 16
    assert max(provider.paid.values()) == 1
    assert len(disk.records) == 100


def test_a_batch_that_the_provider_fails_for_want_of_room_is_sent_again() -> None:
    disk, provider = Disk("openai", 3), FakeProvider("openai")
    provider.is_full = 2
    job = SimulatedJob(disk, provider)
    job.run()
    assert set(disk.records.values()) == {"done"}
    assert provider.creations == 3
    assert job.now >= 180.0  # one minute, then two


def test_a_provider_that_loses_each_batch_is_not_sent_further_ones() -> None:
    disk, provider = Disk("openai", 3), FakeProvider("openai")
    provider.lost_replies, provider.loses_batches = {*range(1, 20)}, True
    job = SimulatedJob(disk, provider)
    job.run()
    assert job.error is not None
    assert job.error.code == "batches_lost"
    assert provider.creations == 4
    again = SimulatedJob(disk, provider)
    again.run()
    assert again.error is not None
    assert provider.creations == 4
    cancelling = SimulatedJob(disk, provider)
    cancelling.run(cancel_at=0)
    assert cancelling.given_back == {1, 2, 3}
    assert disk.parts == {}


def test_a_creation_that_is_refused_for_a_while_is_tried_again() -> None:
    disk, provider = Disk("openai", 3), FakeProvider("openai")
    provider.refused = {1, 2}
    job = SimulatedJob(disk, provider)
    job.run()
    assert set(disk.records.values()) == {"done"}
    assert job.now >= 14.0  # twice what the provider asked for


def test_a_batch_that_the_provider_does_not_know_any_more_stops_the_job_and_loses_nothing() -> None:
    disk, provider = Disk("openai", 3), FakeProvider("openai")
    with pytest.raises(KilledError):
        SimulatedJob(disk, provider, 14).run()
    batches, provider.batches = provider.batches, {}
    assert len(batches) == 1
    job = SimulatedJob(disk, provider)
    job.run()
    assert job.error is not None
    assert disk.records == {}
    provider.batches = batches  # with the right key
    SimulatedJob(disk, provider).run()
    assert set(disk.records.values()) == {"done"}
