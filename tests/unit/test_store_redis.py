"""The Redis store beyond the contract: scripts that write wholly or not at all, rings, bounds."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import msgspec
import pytest

from runtime.clock import ManualClock
from runtime.errors import SettingsError, StoreError, StoreUnavailableError
from runtime.store import redis as redis_store
from runtime.store import redis_commits, redis_looks, redis_owners, redis_reads, redis_upkeep
from runtime.store.contract import (
    Ack,
    Bury,
    Commit,
    Committed,
    Event,
    FeedEvent,
    Intent,
    Put,
    Refused,
    Remind,
    Result,
    Retry,
    Send,
    Snapshot,
)
from runtime.store.redis import RedisStore
from runtime.store.redis_scripts import COMMIT
from runtime.store.redis_wire import encode_commit
from tests.conformance.kit import (
    LONG_S,
    Desk,
    accept,
    everything,
    ids,
    ok,
    picture,
    publish,
    put,
    send,
    soon,
    started,
)
from tests.redis_server import shared_server

A, B = "acme/counter:a", "acme/counter:b"


@pytest.fixture
def server():
    return shared_server()


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def store(server, prefix, clock):
    store = await RedisStore.open(server.url, clock, prefix=prefix)
    yield store
    await store.close()


@pytest.fixture
async def other(server, prefix, clock):
    """Another client of the same store."""
    store = await RedisStore.open(server.url, clock, prefix=prefix)
    yield store
    await store.close()


@pytest.fixture
async def desk(store):
    return await Desk(store).register()


# a commit is wholly written or not at all


def whole_turn(desk):
    return desk.turn(A, **(everything(0) | {"buries": (Bury("bad-1", "no"),)}))


async def prepared(desk):
    await desk.take(A)
    await desk.give("in-1", "again-1", "bad-1")
    return whole_turn(desk)


def keys_of(server, prefix):
    return {key.decode() for key in server.ask("KEYS", f"{prefix}{{*")}


def state_of(server, prefix, *left_out):
    """Every key's value; counters aside, whose numbers may be missing after a defect."""
    counters = {f"{prefix}{{system}}:{name}" for name in ("head", "cursor")}
    kept = sorted(keys_of(server, prefix) - counters - set(left_out))
    return {key: server.ask("DUMP", key) for key in kept}


async def test_no_key_of_another_type_tears_a_commit(server, desk, prefix, clock):
    """Redis never undoes: an error after the first write would leave half a turn."""
    await prepared(desk)
    await ok(desk.store, whole_turn(desk))
    touched = keys_of(server, prefix)
    assert len(touched) > 30
    stopped = 0
    for number, key in enumerate(sorted(touched)):
        again = f"{prefix}-{number}"
        store = await RedisStore.open(server.url, clock, prefix=again)
        fresh = await Desk(store).register()
        turn = await prepared(fresh)
        wrong = key.replace(prefix, again, 1)
        server.ask("DEL", wrong)
        if server.ask("TYPE", key) == b"stream":
            server.ask("SADD", wrong, "x")
        else:
            server.ask("XADD", wrong, "*", "a", "b")
        before = state_of(server, again, wrong)
        try:
            [answer] = await store.commit([turn])
        except StoreError:
            stopped += 1
            assert state_of(server, again, wrong) == before, f"torn by {key}"
        else:
            assert isinstance(answer, Committed | Refused), key
            if isinstance(answer, Refused):
                assert state_of(server, again, wrong) == before, f"torn by {key}"
        await store.close()
    assert stopped > 20, "hardly any key was asked for its type"


WRONG = {
    "ack": {"acks": (Ack("in-1", "text"),)},
    "retry": {"retries": (Retry("again-1", "soon", "busy"),)},
    "bury": {"buries": (Bury("bad-1", 7),)},
    "event": {"events": (Event("e", b"1"), Event("f", b"1", "schema"))},
    "event body": {"events": (Event("e", None),)},
    "snapshot": {"snapshot": Snapshot(None)},
    "send": {"sends": (send("out-1", B, A), Send("out-2", A, B, None))},
    "remind": {"reminders": (Remind("x", "tomorrow"),)},
    "intent": {"intents": (Intent("job_1", "s-1", None, b""),)},
    "result": {"results": (Result("job_1", "s-1", None),)},
    "put": {"puts": (Put("job", "k", "acme", 7),)},
    "terms": {"puts": (Put("job", "k", "acme", b"", (None, "a=1")),)},
    "feed": {"feed": (publish("a"), FeedEvent("acme", "b", (), "now", b""))},
}


@pytest.mark.parametrize("part", WRONG)
async def test_a_part_of_a_wrong_type_writes_nothing(server, desk, prefix, part):
    """A defect of one caller would leave half a turn, or stop the commits beside it."""
    await prepared(desk)
    before = state_of(server, prefix)
    wrong = desk.turn(A, **(everything(0) | WRONG[part]))
    with pytest.raises((StoreError, TypeError, AttributeError)):
        await desk.store.commit([wrong])
    assert state_of(server, prefix) == before
    others = [desk.give(f"other-{at}") for at in range(redis_commits.FLIGHTS_MAX)]
    bad, right = desk.store.commit([wrong]), desk.commit(**everything(0))  # they travel together
    *_, error, found = await asyncio.gather(*others, bad, right, return_exceptions=True)
    assert isinstance(error, Exception)
    assert isinstance(found, Committed)


@pytest.mark.parametrize("part", WRONG)
async def test_a_part_of_a_wrong_type_fails_its_call_before_any_of_it(server, desk, prefix, part):
    """Who made the call would think that nothing was written, and write the rest again."""
    await prepared(desk)
    before = state_of(server, prefix)
    wrong = desk.turn(A, **(everything(0) | WRONG[part]))
    with pytest.raises(ValueError):
        await desk.store.commit([accept(send("good")), wrong])
    assert state_of(server, prefix) == before


@pytest.mark.parametrize("key", [Path("a/b"), 1 << 70])
async def test_what_has_no_form_as_bytes_is_its_callers_error(desk, key):
    """Whoever gathers commits of many could not tell it from a store that has failed."""
    for beside in ([], [accept(send("m"))]):
        with pytest.raises(ValueError):
            await desk.store.commit([*beside, Commit("acme", puts=(put(key),))])
    assert await desk.give("m") == (1,)


async def test_a_call_of_which_a_part_was_written_has_an_unknown_outcome(server, desk, prefix):
    """A defect of the server's data would pass for a call of which nothing is there."""
    await desk.take(A)
    server.ask("SADD", f"{prefix}{{acme}}:inbox:counter:b", "of another type")
    call = [accept(send("good")), accept(send("bad", B))]
    with pytest.raises(StoreUnavailableError):
        await desk.store.commit(call)
    assert ids(await desk.store.inbox(A, 0, 10)) == ["good"]
    with pytest.raises(StoreError) as again:
        await desk.store.commit(call)
    assert type(again.value) is StoreError, "this time nothing was written"


async def test_a_script_that_fails_late_has_an_unknown_outcome(server, desk, prefix):
    """What it had written by then would pass for not written."""
    await desk.take(A)
    await desk.give("m")
    server.ask("SET", f"{prefix}{{system}}:pending", "no number")
    with pytest.raises(StoreUnavailableError):
        await desk.store.commit([desk.turn(A, acks=(Ack("m"),))])
    assert (await desk.store.outcome(A, "m", 0)).status == "processed"


def parts_of_a_commit():
    return Commit(
        "acme", A, None, 3,
        acks=(Ack("1", b"\xff"), Ack("2")), retries=(Retry("3", 4, "e"),),
        buries=(Bury("5", "f"),), events=(Event("n", b"body", 2),), snapshot=Snapshot(b"s", 3),
        sends=(Send("i", "s", "r", b"b" * 300, "to"),), reminders=(Remind("k", 5, b"b" * 70_000),),
        intents=(Intent("j", "k", "pure", b""),), results=(Result("j", "k", b"r"),),
        puts=(Put("c", "k", "o", b"d", ("t",), 2), Put("c", "k", "o", None)),
        feed=(FeedEvent("o", "e", ("r",), 9, b"f"),),
    )  # fmt: skip


def same(found, right):
    """`found` is the script's form of `right`: nil for empty, msgpack in a text for a body."""
    if isinstance(right, bytes):
        return msgspec.msgpack.decode(found) == right
    if isinstance(right, list):
        found = found or []
        return len(found) == len(right) and all(map(same, found, right))
    return found == right


def test_a_commit_reaches_the_script_with_every_part_in_its_place():
    """A field that the contract appends, or moves, would be written as another."""
    right = msgspec.msgpack.decode(msgspec.msgpack.encode(parts_of_a_commit()))
    packed = encode_commit(parts_of_a_commit())
    packed = packed.replace(b"\xdb", b"\xc6")  # texts of bodies, so that any bytes decode
    found = msgspec.msgpack.decode(packed)
    assert len(found) == len(right) == len(Commit.__struct_fields__)
    for name, one, other in zip(Commit.__struct_fields__, found, right, strict=True):
        assert same(one, other), name


# scripts


async def test_scripts_that_the_server_forgot_are_sent_again(server, desk):
    """A restart, or an operator's SCRIPT FLUSH, would stop every host."""
    await desk.take(A)
    done = 0

    async def lane(number):
        nonlocal done
        for turn in range(20):
            await desk.give(f"m{number}-{turn}")
            done += 1

    lanes = [asyncio.create_task(lane(number)) for number in range(4)]
    async with asyncio.timeout(60):
        while done < 80:
            server.ask("SCRIPT", "FLUSH", "SYNC")
            await asyncio.sleep(0)
    await asyncio.gather(*lanes)
    assert len(await desk.store.history(A, 0, 100)) == 80
    assert (await desk.store.health()).refused == {}


async def test_every_script_says_what_it_may_do():
    """Without its first line a script would run on a full server, and stop in the middle."""
    assert COMMIT.source.startswith("#!lua\n")
    assert COMMIT.source.count("#!lua") == 1


async def test_commits_of_many_callers_travel_together(server, desk):
    """Each commit would cost a script, a sync of the disk and a way there and back."""

    def scripts():
        stats = server.text("INFO", "commandstats")
        return int(stats.split("cmdstat_evalsha:calls=")[1].split(",")[0])

    await desk.give("warm")
    before = scripts()
    await asyncio.gather(*(desk.give(f"m{number}") for number in range(200)))
    assert scripts() - before < 10
    assert len(await desk.store.history(A, 0, 1000)) == 201


async def test_a_claim_is_long_in_many_scripts_not_in_one(desk, monkeypatch):
    """The server would stand still for everybody, and its answer come too late for ever."""
    monkeypatch.setattr(redis_owners, "PART_BYTES_MAX", 1_000, raising=False)
    agents = [A, B, "acme/counter:c"]
    for agent in agents:
        for number in range(4):
            await ok(desk.store, accept(send(f"m{number}", agent, body=b"x" * 800)))
    run, sizes = desk.store._owners._run, []

    async def counted(*asked):
        answer = await run(*asked)
        sizes.append(len(answer))
        return answer

    desk.store._owners._run = counted
    taken = await desk.take()
    assert [(one.agent, len(one.inbox)) for one in taken] == [(agent, 4) for agent in agents]
    assert len(sizes) > 2 and max(sizes) < 2_500


async def test_a_journal_of_large_events_is_pruned_a_part_at_a_time(desk, monkeypatch):
    """The server would read hundreds of MB for one prune, and stand still for everybody."""
    monkeypatch.setattr(redis_upkeep, "PART_BYTES_MAX", 1_000, raising=False)
    await desk.take(A)
    for number in range(40):
        await ok(desk.store, desk.turn(A, number, events=(Event("e", b"x" * 400),)))
    await ok(desk.store, desk.turn(A, 40, snapshot=Snapshot(b"s")))
    await ok(desk.store, desk.turn(A, 40, events=(Event("e", b"x" * 400),)))
    pruned = []
    while (swept := await desk.store.prune(1 << 60, 1000)).more:
        pruned.append(swept.rows)
    assert max(pruned) <= 3 and sum(pruned) + swept.rows == 40
    assert [event.version for event in await desk.store.journal(A, 0, 100)] == [41]


async def test_a_long_backlog_is_polled_in_short_looks(desk, monkeypatch):
    """A look through 300,000 messages would hold the server, and be given up, again and again."""
    monkeypatch.setattr(redis_looks, "POLL_SEQS_MAX", 7)
    monkeypatch.setattr(redis_looks, "POLL_AGENTS_MAX", 3)
    agents = [f"acme/counter:{name}" for name in "abcde"]
    sent = [f"m{number}" for number in range(90)]
    await desk.take(*agents)
    for number, message_id in enumerate(sent):  # each agent's own stand close together
        await desk.give(message_id, to=agents[number // 18])
    await desk.give("last", to=agents[0])
    told, cursor = [], 0
    while (poll := await desk.store.poll("o1", cursor, 1000, 0)).messages:
        assert len(poll.messages) <= 2 * (7 + 1)
        assert cursor < poll.cursor
        told, cursor = told + ids(poll.messages), poll.cursor
    assert told == [*sent, "last"]


async def test_large_events_are_claimed_in_many_scripts(desk, other, monkeypatch):
    """An agent that changed much lately could not be claimed in time, and so never again."""
    monkeypatch.setattr(redis_owners, "PART_BYTES_MAX", 1_000)
    monkeypatch.setattr(redis_reads, "PART_BYTES_MAX", 1_000)
    await desk.take(A)
    first = desk.turn(A, 0, events=(Event("e", b"x"),), snapshot=Snapshot(b"s"))
    later = [desk.turn(A, at, events=(Event("e", b"x" * 300),)) for at in range(1, 50)]
    for turn in (first, *later):
        await ok(desk.store, turn)
    await desk.give("m")
    await desk.store.prune(1 << 60, 1000)  # what the snapshot covers is gone
    await desk.store.renew("o1", 0.0)
    run, sizes = other._owners._run, []

    async def counted(*asked):
        answer = await run(*asked)
        sizes.append(len(answer))
        return answer

    other._owners._run = other._owners._reads._run = counted
    rival = await Desk(other, "o2", "host-2").register()
    [taken] = await rival.take(A)
    assert (taken.version, taken.snapshot_version, taken.snapshot) == (50, 1, Snapshot(b"s"))
    assert [event.version for event in taken.events] == list(range(2, 51))
    assert ids(taken.inbox) == ["m"]
    assert len(sizes) > 10 and max(sizes) < 2_500


async def test_a_call_that_is_too_long_for_one_script_is_written_in_order(desk, monkeypatch):
    """A long call would stop the server for everybody, or overtake itself."""
    monkeypatch.setattr(redis_commits, "SCRIPT_BYTES_MAX", 10_000)
    await desk.take(A)
    turns = [
        desk.turn(A, number, events=(Event(f"e{number}", b"x" * 3_000),)) for number in range(50)
    ]
    answers = await desk.store.commit(turns)
    assert [answer.version for answer in answers] == list(range(1, 51))
    assert len(await desk.store.journal(A, 0, 100)) == 50


async def test_a_call_beyond_the_bound_is_refused_here(desk, monkeypatch):
    """A huge commit would break the connection of everybody in this process."""
    monkeypatch.setattr(redis_commits, "COMMIT_BYTES_MAX", 1000)
    with pytest.raises(ValueError, match="at most 1000"):
        await desk.store.commit([accept(send("m", body=b"x" * 1000))])
    assert isinstance(await ok(desk.store, accept(send("m"))), Committed)


async def test_a_caller_that_gives_up_takes_no_other_answer_with_it(server, desk):
    """The next caller would get an answer that is not its own."""
    server.ask("CLIENT", "PAUSE", "20000", "WRITE")
    try:
        calls = [asyncio.create_task(desk.give(f"m{number}")) for number in range(30)]
        async with asyncio.timeout(10):
            while not holds_a_script(server):
                await asyncio.sleep(0)
        for call in calls[::3]:  # of the first the server has the script, of the others nothing
            call.cancel()
        await asyncio.wait(calls[::3])
    finally:
        server.ask("CLIENT", "UNPAUSE")
    answers = await asyncio.gather(*calls, return_exceptions=True)
    seqs = {message.message_id: message.seq for message in await desk.store.history(A, 0, 100)}
    assert set(seqs) == {f"m{number}" for number in range(30) if number % 3} | {"m0"}
    for number, answer in enumerate(answers):
        if number % 3:
            assert answer == (seqs[f"m{number}"],)
        else:
            assert isinstance(answer, asyncio.CancelledError)


def holds_a_script(server):
    """Whether the server has read a script that it does not run as long as writes are paused."""
    clients = [dict(pair.split("=", 1) for pair in line.split()) for line in
               server.text("CLIENT", "LIST").splitlines()]  # fmt: skip
    return any("b" in one["flags"] and one["cmd"] == "evalsha" for one in clients)


# rings


async def test_another_clients_commits_wake_who_waits(desk, other, monkeypatch, clock):
    """Every message between two hosts would be as slow as the slow look."""
    monkeypatch.setattr(redis_store, "LOOK_EVERY_S", LONG_S)
    await desk.take(A)
    poll = await started(desk.store, desk.store.poll("o1", 0, 10, LONG_S))
    tail = await started(desk.store, desk.store.tail(-1, 10, LONG_S))
    await listening(desk.store)
    await ok(other, accept(send("m")))
    assert ids((await soon(poll)).messages) == ["m"]
    outcome = await started(other, other.outcome(A, "m", LONG_S))
    await listening(other)
    await desk.commit(A, acks=(Ack("m", b"1"),), feed=(publish("done"),))
    assert (await soon(outcome)).reply == b"1"
    assert [entry.event for entry in (await soon(tail)).entries] == ["done"]
    ready = await started(desk.store, desk.store.poll("o1", 1, 10, LONG_S))
    await ok(other, accept(send("n", B)))
    assert (await soon(ready)).ready == 1


async def test_an_earlier_reminder_of_another_client_is_on_time(desk, other, monkeypatch, clock):
    """Hosts would sleep until the reminder that they knew of."""
    monkeypatch.setattr(redis_store, "LOOK_EVERY_S", LONG_S)
    rival = await Desk(other, "o2", "host-2").register()
    await rival.take(A)
    waiting = await started(desk.store, desk.store.poll("o1", 0, 10, LONG_S))
    await listening(desk.store)
    await rival.commit(A, reminders=(Remind("wake", clock.now_ms() + 50),))
    await other.release("o2", [A])
    clock.advance(0.1)
    assert (await soon(waiting)).ready == 1


async def test_a_lost_ring_costs_a_slow_look_and_nothing_else(desk, other, monkeypatch):
    """A message whose ring was lost would wait for ever."""
    monkeypatch.setattr(redis_store, "LOOK_EVERY_S", 0.05)
    await desk.take(A)
    waiting = await started(desk.store, desk.store.poll("o1", 0, 10, LONG_S))
    await desk.store._bell.close()
    await ok(other, accept(send("m")))
    assert ids((await soon(waiting)).messages) == ["m"]


async def test_a_subscription_that_was_away_makes_everybody_look(server, desk, other, monkeypatch):
    """What was rung while the subscription was away would be missed."""
    monkeypatch.setattr(redis_store, "LOOK_EVERY_S", LONG_S)
    monkeypatch.setattr("runtime.store.redis_bell.RETRY_S", 0.01)
    await desk.take(A)
    waiting = await started(desk.store, desk.store.poll("o1", 0, 10, LONG_S))
    await listening(desk.store)
    calls, tried = desk.store._calls, asyncio.Event()

    async def no_connection(_greet):
        tried.set()
        raise StoreUnavailableError("away")

    connect, calls.server.connect = calls.server.connect, no_connection
    assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") >= 1
    await ok(other, accept(send("m")))
    for _ in range(2):  # the second began after the ring, and the subscription is still away
        tried.clear()
        await soon(tried.wait())
    assert not waiting.done()
    calls.server.connect = connect
    assert ids((await soon(waiting)).messages) == ["m"]


async def listening(store):
    """Wait until the store hears rings."""
    async with asyncio.timeout(5):
        while (await store.health()).details["rings"] != "heard":
            await asyncio.sleep(0)


# bounds


async def test_a_cursor_before_what_the_feed_keeps_is_reset(desk, monkeypatch):
    """The feed would grow for ever, or a slow subscriber miss events in silence."""
    monkeypatch.setattr(redis_store, "FEED_MAX", 100)
    for number in range(10):
        feed = tuple(publish(f"e{number * 100 + at}") for at in range(100))
        await ok(desk.store, Commit("acme", feed=feed))
    old = await desk.store.tail(5, 1000, LONG_S)
    assert old.reset and 100 <= len(old.entries) <= 200
    assert [entry.cursor for entry in old.entries][-1] == old.cursor == 1000
    recent = await desk.store.tail(990, 1000, 0)
    assert not recent.reset and len(recent.entries) == 10
    assert (await desk.store.tail(1000, 10, 0)).reset is False


async def test_a_purge_goes_on_where_its_last_call_has_stopped(desk, monkeypatch):
    """Among many keys of others an organization would never be found, or in one long call."""
    monkeypatch.setattr(redis_upkeep, "SCAN_MAX", 5)
    monkeypatch.setattr(redis_upkeep, "PIECES_MAX", 3)
    for number in range(20):
        await desk.give(f"m{number}", to=f"acme/counter:{number}")
        await desk.give(f"m{number}", to=f"beta/counter:{number}")
    calls = rows = 0
    more = True
    while more:
        swept = await desk.store.purge("acme", 1000)
        calls, rows, more = calls + 1, rows + swept.rows, swept.more
    assert calls > 10 and rows == 40
    assert await desk.store.inbox("acme/counter:7", 0, 10) == []
    assert len(await desk.take()) == 20


async def test_inboxes_that_are_full_take_only_what_makes_room(desk, monkeypatch):
    """A flood would fill the server's memory."""
    monkeypatch.setattr(redis_store, "PENDING_MAX", 3)
    await desk.take(A)
    await desk.give("m1", "m2", "m3")
    turn = desk.turn(A, acks=(Ack("m1"),), sends=(send("m5", A, A),))
    *full, fine = await asyncio.gather(
        *(desk.store.commit([accept(send(f"m4-{at}"))]) for at in range(redis_commits.FLIGHTS_MAX)),
        desk.store.commit([accept(send("m6"))]),  # it travels with the next one
        desk.store.commit([turn]),
        return_exceptions=True,
    )
    assert all("3 messages are pending" in str(error) for error in full)
    assert isinstance(fine[0], Committed)
    await desk.commit(A, acks=(Ack("m2"),))
    assert await desk.give("m6")


async def test_leases_are_measured_by_the_servers_clock(server, prefix):
    """A client whose clock is wrong would hold agents for ever, or for no time."""
    store = await RedisStore.open(server.url, prefix=prefix)
    seconds, micros = map(int, server.ask("TIME"))
    await store.register("o1", "host-1", 100)
    ends = int(server.ask("ZSCORE", f"{prefix}{{system}}:owners", "o1"))
    assert 99_000 < ends - (seconds * 1000 + micros // 1000) < 105_000
    await store.close()


async def test_closing_leaves_no_task_behind(server, prefix):
    """A process that opens stores would fill with tasks and connections."""
    before = asyncio.all_tasks()
    store = await RedisStore.open(server.url, prefix=prefix)
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await waiting
    assert asyncio.all_tasks() == before
    await RedisStore(server.url).close()


# URLs


@pytest.mark.parametrize("url", ["http://:hidden@h", "redis://:hidden@h:port", "redis://h?nope=1"])
def test_a_url_that_cannot_be_used_is_told_without_its_password(url):
    """A typing error would put the password into a log."""
    with pytest.raises(SettingsError) as error:
        RedisStore(url)
    assert "hidden" not in str(error.value)


async def test_prefixes_share_nothing(server, desk, clock):
    """Two deployments on one server would read each other's work."""
    await desk.give("m")
    stranger = await RedisStore.open(server.url, clock, prefix=uuid.uuid4().hex)
    before = await picture(stranger)
    assert before[1:3] == [[], []]
    await stranger.close()
    with pytest.raises(SettingsError):
        RedisStore(server.url, prefix="a{b}")
