"""Planted in hosts: commits, claims, retries, snapshots, what polls bring."""

from __future__ import annotations

import heapq
import json
from typing import Any

from msgspec.structs import replace

from runtime.backoff import Backoff
from runtime.errors import StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.hosting import activation
from runtime.hosting.activation import Activation
from runtime.hosting.claims import Claims
from runtime.hosting.folded import Folded
from runtime.hosting.host import Host
from runtime.store.contract import Commit, Committed, Refused, Snapshot, StoredMessage
from runtime.turn import to_json
from runtime.verify.bugs.bug import Bug, Plant
from runtime.verify.bugs.store import VERSION


def _is_turn(one: Commit) -> bool:
    return one.expected_version is not None and bool(one.acks)


def _acknowledges_first(commit: Any) -> Any:
    async def committing(self: GroupCommitter, one: Commit) -> Any:
        if not _is_turn(one):
            return await commit(self, one)
        at_once, rest = one.sends[: one.at_once], one.sends[one.at_once :]
        accepted = await commit(
            self, Commit(one.organization, one.agent, one.fence, acks=one.acks, sends=at_once)
        )
        answer = await commit(self, replace(one, acks=(), sends=rest))
        if isinstance(accepted, Committed) and isinstance(answer, Committed):
            answer = replace(answer, seqs=(*accepted.seqs, *answer.seqs))
        return answer

    return committing


def _answers_first(turn: Any) -> Any:
    async def handling(self: Activation, stored: StoredMessage, message: Any) -> Any:
        if message.message_type == "read":
            reply = json.dumps(self.agent.state.model_dump()).encode()
            self.host.answers.processed(self.address, stored.message_id, reply)
        return await turn(self, stored, message)

    return handling


def _takes_unknown_for_done(_: Any) -> Any:
    async def writing(self: GroupCommitter, commits: list[Commit]) -> list[Any]:
        try:
            return await self._store.commit(commits)
        except StoreUnavailableError:
            return [
                Committed((one.expected_version or 0) + len(one.events), (), 0) for one in commits
            ]

    return writing


def _takes_unknown_for_refused(_: Any) -> Any:
    async def writing(self: GroupCommitter, commits: list[Commit]) -> list[Any]:
        try:
            return await self._store.commit(commits)
        except StoreUnavailableError:
            return [Refused("version_conflict", "nobody knows") for _ in commits]

    return writing


def _shrugs_at_refusals(_: Any) -> Any:
    async def refused(self: Activation, stored: StoredMessage, answer: Refused) -> None:
        self.folded.restore()
        self.done(stored.seq)

    return refused


def _loses_the_place(failed: Any) -> Any:
    async def failing(self: Activation, stored: StoredMessage, error: str) -> None:
        await failed(self, stored, error)
        moved = [
            (1 << 60 if one.message_id == stored.message_id else seq, one)
            for seq, one in self.inbox._waiting
        ]
        heapq.heapify(moved)
        self.inbox._waiting[:] = moved

    return failing


def _sends_though_failed(failed: Any) -> Any:
    async def failing(self: Activation, stored: StoredMessage, error: str) -> None:
        turn: Any = self.agent.context
        if turn.sends and not stored.attempts:
            await self.write(sends=tuple(turn.sends))
        await failed(self, stored, error)

    return failing


def _keeps_the_state(_: Any) -> Any:
    def restore(self: Folded) -> None:
        if not self._clean:
            self.agent.state = self.agent.State.model_validate(self.committed)
            self._clean = self.agent.state.model_dump(mode="json")

    return restore


def _without_letter(burial: Any) -> Any:
    def burying(*arguments: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {**burial(*arguments), "puts": ()}
        return fields

    return burying


def _snapshots_before(snapshot: Any) -> Any:
    def saving(self: Activation, after: Any, new_events: int, wanted: bool) -> Snapshot | None:
        made: Snapshot | None = snapshot(self, after, new_events, wanted)
        return replace(made, body=to_json(self.folded.committed)) if made is not None else None

    return saving


def _keeps_lost_claims(_: Any) -> Any:
    async def nothing(self: Claims) -> None:
        return None

    return nothing


def _drops_the_last(hand_over: Any) -> Any:
    def handing(self: Host, messages: tuple[StoredMessage, ...]) -> None:
        hand_over(self, messages[:-1] if len(messages) > 1 else messages)

    return handing


def _waits_ten_times(wait_s: Any) -> Any:
    return lambda self, retry, random: 10 * wait_s(self, retry, random)


def _polls_as_before(begin_anew: Any) -> Any:
    """A host that was superseded goes on with its old place in the order of messages."""

    async def beginning(self: Host) -> None:
        cursor = self._order.cursor
        await begin_anew(self)
        self._order.cursor = cursor + 50

    return beginning


BUGS = (
    Bug("acknowledged before the commit", (Plant(GroupCommitter, "commit", _acknowledges_first),)),
    Bug("answered before the commit", (Plant(Activation, "_turn", _answers_first),)),
    Bug("unknown taken for done",
        (Plant(GroupCommitter, "_write", _takes_unknown_for_done), VERSION)),
    Bug("unknown taken for refused, refused for done",
        (Plant(GroupCommitter, "_write", _takes_unknown_for_refused),
         Plant(Activation, "_refused", _shrugs_at_refusals))),
    Bug("retry loses its place", (Plant(Activation, "_failed", _loses_the_place),)),
    Bug("failed turn's messages are sent", (Plant(Activation, "_failed", _sends_though_failed),)),
    Bug("failed turn's state is kept", (Plant(Folded, "restore", _keeps_the_state),)),
    Bug("tried for ever", (Plant(activation, "DELIVERIES_MAX", lambda _: 1 << 30),)),
    Bug("dead letter forgotten", (Plant(activation, "burial", _without_letter),)),
    Bug("snapshot off by one", (Plant(Activation, "_snapshot", _snapshots_before),)),
    Bug("lost claims are kept",
        (Plant(Claims, "_release_unknown", _keeps_lost_claims),
         Plant(Claims, "release_orphans", _keeps_lost_claims))),
    Bug("last message of a poll dropped", (Plant(Host, "_hand_over", _drops_the_last),)),
    Bug("backoff ten times too long", (Plant(Backoff, "wait_s", _waits_ten_times),)),
    Bug("place kept by a superseded host", (Plant(Host, "_begin_anew", _polls_as_before),)),
)  # fmt: skip
