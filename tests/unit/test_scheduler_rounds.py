"""What has come goes into rounds, and what a round led to into commits, in its order."""

from __future__ import annotations

from runtime.jobs.decisions import Decision
from runtime.jobs.rounds import ENDS_MAX, UNIT_BYTES_MAX, UNITS_MAX, Heard, Unit, packed, rounds
from runtime.message import Message
from runtime.store.contract import Put, StoredMessage


def heard(number: int, message_type: str, **content: str) -> Heard:
    message = Message(
        message_id=f"m{number}",
        sender="worker:1",
        recipient="scheduler:main",
        message_type=message_type,
        content={"jobId": f"job_{number}", **content},
        timestamp="2026-01-01T00:00:00.000Z",
    )
    return Heard.of(
        StoredMessage(
            number, message.message_id, "acme/worker:1", "system/scheduler:main",
            message.to_json(), 0,
        )
    )  # fmt: skip


def ended(number: int) -> Heard:
    return heard(number, "job.ended", outcome="completed")


def test_a_round_hears_of_so_many_ends() -> None:
    came = [ended(number) for number in range(2 * ENDS_MAX + 1)]
    parts = rounds(came)
    assert [len(part) for part in parts] == [ENDS_MAX, ENDS_MAX, 1]
    assert [one for part in parts for one in part] == came


def test_what_ends_no_run_makes_no_round_of_its_own() -> None:
    came = [heard(number, "job.queued") for number in range(5 * ENDS_MAX)]
    assert rounds(came) == [came]


def test_a_failed_run_has_ended_too() -> None:
    came = [heard(number, "job.ended", outcome="failed") for number in range(ENDS_MAX + 1)]
    assert [len(part) for part in rounds(came)] == [ENDS_MAX, 1]


def test_nothing_that_has_come_is_a_round_too() -> None:
    assert rounds([]) == [[]]  # for what is due, and for what may start


def unit(size_bytes: int) -> Unit:
    return Unit(Decision(puts=[Put("job", "job_1", "acme", b"x" * size_bytes)]))


def test_a_commit_has_so_many_units_and_bytes() -> None:
    small = [unit(1) for _ in range(UNITS_MAX + 1)]
    assert [len(part) for part in packed(small)] == [UNITS_MAX, 1]
    large = [unit(UNIT_BYTES_MAX), unit(1), unit(1)]
    assert packed(large) == [large[:2], large[2:]]  # cut once it is more than the bound
