"""The Redis store and its server: what it refuses, what it says, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from runtime.errors import StoreError, StoreFullError, StoreUnavailableError
from runtime.patience import patiently
from runtime.store import redis as redis_store
from runtime.store import redis_bell, redis_link
from runtime.store.contract import Ack, Commit, Committed, Refused
from runtime.store.redis import RedisStore
from runtime.store.redis_server import Facts, ServerRefusedError
from tests.conformance.kit import LONG_S, Desk, accept, ids, ok, one, send, soon, started
from tests.redis_server import RedisServer

A = "acme/counter:a"
ACL = (
    "ON", ">secret-word", "~troupe{*", "&troupe{*", "-@all", "+@read", "+@write", "+@connection",
    "+eval", "+evalsha", "+publish", "+subscribe", "+info", "+time", "+config|get",
    "+bgrewriteaof",
)  # fmt: skip
"""What docs/operations.md says a user of the store must be allowed."""


@pytest.fixture
def start(tmp_path):
    """Starts servers of this test's own, with settings."""
    servers = []

    def start(**settings):
        server = RedisServer(tmp_path / f"redis-{len(servers)}", **settings).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.resume()
        server.kill()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
async def store(server):
    store = await RedisStore.open(server.url)
    yield store
    await store.close()


async def broken(*stores):
    """Each store has noticed that its connection is gone."""
    for store in stores:
        with contextlib.suppress(StoreUnavailableError):
            await store.health()


async def error_of(store):
    """What is said while the store can't be had."""
    with pytest.raises(StoreUnavailableError) as error:
        await store.health()
    return str(error.value)


async def restarted(server, *stores):
    server.kill()
    server.start()
    await broken(*stores)


# what is refused


@pytest.mark.parametrize(
    ("settings", "named", "remedy"),
    [
        ({"appendonly": "no"}, "appendonly is no", "CONFIG SET appendonly yes"),
        (
            {"maxmemory_policy": "allkeys-lru"},
            "maxmemory-policy is allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ({"cluster_enabled": "yes"}, "part of a cluster", "cluster-enabled no"),
        ({"replicaof": "127.0.0.1 1"}, "is a replica", "REPLICAOF NO ONE"),
    ],
)
async def test_a_server_that_would_lose_work_is_refused_at_start(start, settings, named, remedy):
    """Accepted work would be lost by a setting that nobody looked at."""
    with pytest.raises(StoreError) as refused:
        await RedisStore.open(start(**settings).url)
    assert not isinstance(refused.value, StoreUnavailableError)
    assert named in str(refused.value) and remedy in str(refused.value)


async def test_the_remedy_of_a_refusal_helps(start):
    """An operator would type what we say, and be refused again."""
    server = start(appendonly="no", maxmemory_policy="allkeys-lru")
    for words in ("appendonly yes", "maxmemory-policy noeviction"):
        with pytest.raises(ServerRefusedError, match=words):
            await RedisStore.open(server.url)
        server.ask("CONFIG", "SET", *words.split())
    store = await RedisStore.open(server.url)
    await store.close()


@pytest.mark.parametrize(
    ("info", "why"),
    [
        ({"redis_version": "6.2.14"}, "older than Redis 7.0"),
        ({"redis_mode": "sentinel"}, "cluster"),
        ({"aof_enabled": "0"}, "appendonly"),
        ({"maxmemory_policy": "volatile-ttl"}, "volatile-ttl"),
    ],
)
def test_what_info_alone_tells_is_judged_as_well(info, why):
    """Where CONFIG is forbidden, any server would do."""
    good = {
        "redis_version": "7.0.15", "redis_mode": "standalone", "role": "master",
        "aof_enabled": "1", "maxmemory_policy": "noeviction",
    }  # fmt: skip
    Facts(good, {}).check()
    with pytest.raises(ServerRefusedError, match=why):
        Facts(good | info, {}).check()


async def test_a_server_is_checked_whenever_it_is_connected_to(server, store, caplog):
    """The server behind an address changes: the next one might keep nothing."""
    await ok(store, accept(send("m1")))
    server.ask("CONFIG", "SET", "appendonly", "no")
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    await broken(store)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="appendonly"):
            await store.commit([accept(send("m2"))])
    told = [one for one in caplog.records if getattr(one, "action", "") == "store.refused"]
    assert [one.levelno for one in told] == [logging.ERROR]
    server.ask("CONFIG", "SET", "appendonly", "yes")
    await ok(store, accept(send("m2")))


async def test_another_layout_is_refused(server, store):
    """An older release would write into what a newer one has left."""
    server.ask("HSET", "troupe{system}:server", "layout", "2")
    with pytest.raises(ServerRefusedError, match="layout 2"):
        await RedisStore.open(server.url)


async def test_nobody_there_is_told_at_once(tmp_path):
    """A deployment without its server would hang instead of saying so."""
    async with asyncio.timeout(LONG_S / 2):
        with pytest.raises(StoreUnavailableError):
            await RedisStore.open(f"unix://{tmp_path}/no.sock")


async def test_all_settings_are_asked_for_in_one_call(server):
    """A server that is far away would not have answered them in time, and could not be used."""
    store = await RedisStore.open(server.url)
    assert "cmdstat_config|get:calls=1," in server.text("INFO", "commandstats")
    await store.close()


# users and passwords


def with_user(server, *rules):
    server.ask("ACL", "SETUSER", "troupe", "RESET", *rules)
    return f"unix://troupe:secret-word@{server.socket}"


async def test_the_documented_user_is_allowed_enough(server):
    """An operator who follows the documentation would be stopped at the first script."""
    store = await RedisStore.open(with_user(server, *ACL))
    assert (await store.health()).durability == "power loss"
    desk = await Desk(store).register()
    waiting = await started(store, store.outcome(A, "m", LONG_S))
    assert await waiting is None
    parked = await started(store, store.poll("o1", 0, 10, LONG_S))
    await desk.give("m")
    assert (await soon(parked)).ready == 1
    await desk.take(A)
    outcome = await started(store, store.outcome(A, "m", LONG_S))
    await desk.commit(acks=(Ack("m", b"1"),))
    assert (await soon(outcome)).reply == b"1"
    assert (await store.health()).details["rings"] == "heard"
    await store.close()


async def test_a_server_that_hides_its_settings_is_taken_and_that_is_told(server):
    """A managed server could not be used, or would be trusted blindly."""
    store = await RedisStore.open(with_user(server, *ACL, "-config"))
    health = await store.health()
    assert health.durability == "process kill"
    assert "appendfsync" in health.details["unverified"]
    assert "could not be read" in health.details["at_risk"]
    await store.close()


async def test_a_server_that_does_not_even_tell_info_is_refused(server):
    """Nobody could know what a commit rests on."""
    with pytest.raises(ServerRefusedError, match=r"\+info"):
        await RedisStore.open(with_user(server, *ACL, "-info"))


async def test_a_user_without_channels_is_refused_with_the_remedy(server):
    """Redis gives a new user none: each commit would be written, and be told to have failed."""
    everything = ("ON", ">secret-word", "~*", "+@all")
    with pytest.raises(ServerRefusedError, match=r"&troupe\{\*"):
        await RedisStore.open(with_user(server, *everything))
    store = await RedisStore.open(with_user(server, *everything, "&troupe{*"))
    await ok(store, accept(send("m")))
    await store.close()


async def test_a_ring_that_is_forbidden_meanwhile_fails_no_commit(server):
    """What is written by then would be told to have failed, at every commit."""
    store = await RedisStore.open(with_user(server, *ACL))
    server.ask("ACL", "SETUSER", "troupe", "resetchannels")
    await ok(store, accept(send("m")))
    await store.close()


async def test_a_subscription_that_is_refused_is_not_tried_again_at_once(
    server, caplog, monkeypatch
):
    """Each process would do nothing else, and fill the log with it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(redis_bell, "RETRY_S", 0.0)
    store = await RedisStore.open(with_user(server, *ACL, "-subscribe"))
    waiting = await started(store, store.poll("o1", 0, 10, LONG_S))

    async def connections() -> int:
        stats = (await store._calls.command("INFO", "stats")).decode()
        return int(stats.split("total_connections_received:")[1].split()[0])

    async with asyncio.timeout(LONG_S):
        before = await connections()
        while await connections() < before + 10:
            await asyncio.sleep(0)
    assert [one.action for one in caplog.records].count("store.unheard") == 1
    monkeypatch.setattr(redis_bell, "RETRY_S", LONG_S)
    seen = [await connections() for _ in range(600)]  # the latest try ends during the first half
    assert seen[-1] == seen[300]
    waiting.cancel()
    await store.close()


async def test_a_file_that_could_not_be_rewritten_after_a_restart_is_told(server):
    """A managed server that forbids it would be of no use, or its risk be hidden."""
    store = await RedisStore.open(server.url)
    await ok(store, accept(send("m")))
    await store.close()
    server.kill()
    server.start()
    store = await RedisStore.open(with_user(server, *ACL, "-bgrewriteaof"))
    assert "BGREWRITEAOF is forbidden" in (await store.health()).details["append_only_file"]
    await ok(store, accept(send("n")))
    await store.close()


async def test_a_file_that_can_not_be_rewritten_is_told_and_not_tried_at_once_again(server, store):
    """Each process would have the server fork ten times a second, a file more each time."""
    await ok(store, accept(send("m")))
    server.kill()
    in_the_way = server.directory / "appendonlydir" / "appendonly.aof.2.base.rdb"
    in_the_way.mkdir()
    server.start()
    await broken(store)
    async with asyncio.timeout(LONG_S):
        while "can't write its append-only file" not in (told := await error_of(store)):
            assert "after a restart" in told
    for _ in range(20):
        assert "room" in await error_of(store)
    assert "aof_rewrites:1\r" in server.text("INFO", "persistence")
    in_the_way.rmdir()
    another = RedisStore(server.url)
    await ok(another, accept(send("n")))
    assert ids(await store.inbox(A, 0, 10)) == ["m", "n"]
    await another.close()


async def test_a_wrong_password_is_told_and_not_shown(server, caplog):
    """The password would be in a log, or a wrong one be tried for ever in silence."""
    with_user(server, *ACL)
    url = f"unix://troupe:not-this-word@{server.socket}"
    with pytest.raises(ServerRefusedError, match="user or password") as refused:
        await RedisStore.open(url)
    lazy = RedisStore(url)
    with pytest.raises(StoreUnavailableError, match="user or password") as unavailable:
        await lazy.health()
    await lazy.close()
    assert "not-this-word" not in f"{refused.value} {unavailable.value} {caplog.text}"


# what health says


async def test_health_says_what_survives(start):
    """An operator would believe in a durability that the server does not have."""
    for fsync, durability, at_risk in (
        ("always", "power loss", "nothing"),
        ("everysec", "process kill", "about 2 s"),
        ("no", "process kill", "30 s"),
    ):
        server = start(appendfsync=fsync)
        store = await RedisStore.open(server.url)
        health = await store.health()
        assert (health.backend, health.durability) == ("redis", durability)
        assert at_risk in health.details["at_risk"]
        assert health.details["redis_version"] and health.details["used_memory_human"]
        assert health.details["maxmemory_policy"] == "noeviction"
        assert len(health.details["run_id"]) == 40
        server.ask("CONFIG", "SET", "appendonly", "no")
        assert (await store.health()).durability == "none"
        await store.close()


# incarnations


async def test_a_restarted_server_fences_everybody(server, store):
    """It may have lost accepted work: an epoch could be issued twice."""
    desk = await Desk(store).register()
    await desk.take(A)
    await desk.give("m")
    before = desk.incarnation
    await restarted(server, store)
    assert await desk.refused(acks=(Ack("m"),)) == "stale_incarnation"
    assert (await store.health()).incarnation != before
    await desk.register()
    assert desk.incarnation == (await store.health()).incarnation != before
    assert await desk.commit(acks=(Ack("m"),))
    feed = await store.tail(0, 10, LONG_S, None, before)
    assert feed.reset


async def test_of_all_clients_one_draws_the_new_incarnation(server, caplog):
    """Every host would fence the others as it comes back."""
    stores = [await RedisStore.open(server.url) for _ in range(6)]
    old = {(await store.health()).incarnation for store in stores}
    assert len(old) == 1
    await ok(stores[0], accept(send("m")))
    server.kill()
    server.start()
    new = await asyncio.gather(
        *(patiently(store.register, f"o{n}", f"h{n}", 9) for n, store in enumerate(stores))
    )
    assert len(set(new)) == 1 and not set(new) & old
    drawn = [one for one in caplog.records if getattr(one, "action", "") == "store.incarnation"]
    assert len(drawn) == 1
    for store in stores:
        await store.close()


async def test_a_server_that_was_a_replica_for_a_while_fences_everybody(server, store):
    """A failover to it would bring back old data under fences of before, on live connections."""
    desk = await Desk(store).register()
    await desk.take(A)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError):
        await store.commit([desk.turn(A)])
    server.ask("REPLICAOF", "NO", "ONE")
    assert await desk.refused(A) == "stale_incarnation"


async def test_a_promotion_that_no_connection_noticed_fences_everybody(server, store):
    """The connection outlives the change: only the script can see it."""
    desk = await Desk(store).register()
    await desk.take(A)
    server.ask("REPLICAOF", "127.0.0.1", "1")
    server.ask("REPLICAOF", "NO", "ONE")
    assert await desk.refused(A) == "stale_incarnation"


async def test_an_emptied_server_is_a_new_one(server, store, caplog):
    """FLUSHALL would leave hosts at work on what nobody has any more, and nothing would say so."""
    desk = await Desk(store).register()
    await desk.take(A)
    server.ask("FLUSHALL")
    assert await desk.refused(A) == "stale_incarnation"
    assert [one.action for one in caplog.records] == ["store.incarnation"]
    await desk.register()
    assert [one.epoch for one in await desk.take(A)] == [1]


# a server that hangs or breaks


async def test_a_server_that_hangs_is_unavailable_within_two_seconds(server, monkeypatch):
    """Requests would hang instead of being told to come back."""
    monkeypatch.undo()
    store = await RedisStore.open(server.url)
    assert max(redis_link.ANSWER_S, redis_link.CONNECT_S + redis_link.GREET_S) < 2
    await ok(store, accept(send("m0")))
    server.pause()
    for number in (1, 2):  # on the old connection; then there is none to be had
        calls = [
            store.commit([accept(send(f"m{number}"))]),
            store.inbox(A, 0, 10),
            store.poll("o1", 0, 10, LONG_S),
        ]
        async with asyncio.timeout(LONG_S / 2):
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, StoreUnavailableError)
    server.resume()
    async with asyncio.timeout(LONG_S / 2):
        answer = await patiently(one, store, accept(send("m1")))
        assert isinstance(answer, Committed) or answer == Refused("duplicate", "m1")
        assert ids(await patiently(store.inbox, A, 0, 10)).count("m1") == 1
    await store.close()


async def test_a_connection_that_breaks_leaves_an_unknown_outcome(server, store):
    """A commit that landed would be taken for one that did not, or the other way round."""
    unknown = 0
    for number in range(60):
        calls = [
            asyncio.create_task(one(store, accept(send(f"m{number}-{at}")))) for at in range(4)
        ]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
        for at, answer in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            if isinstance(answer, StoreUnavailableError):
                unknown += 1
                again = await one(store, accept(send(f"m{number}-{at}")))
                assert isinstance(again, Committed) or again.reason == "duplicate"
            else:
                assert isinstance(answer, Committed)
    assert unknown, "no connection broke under a call: nothing was shown"
    history = await store.history(A, 0, 1000)
    assert sorted(ids(history)) == sorted(f"m{n}-{at}" for n in range(60) for at in range(4))


async def test_reads_go_on_while_writes_are_paused(server, store):
    """A planned failover would stop all that only looks, on a connection that is made meanwhile."""
    await store.get("c", "k")
    server.ask("CLIENT", "PAUSE", "60000", "WRITE")
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    await broken(store)
    assert await store.get("c", "k") is None
    server.ask("CLIENT", "UNPAUSE")
    await ok(store, accept(send("m")))


async def test_a_server_that_is_full_refuses_and_goes_on_when_there_is_room(
    server, store, monkeypatch, caplog
):
    """A full server would stop in the middle of a commit, or need a restart, or nobody know it."""
    monkeypatch.setattr(redis_store, "LOOK_EVERY_S", 0.05)
    desk = await Desk(store).register()
    await desk.take(A)
    await desk.give("m")
    used = int(server.text("INFO", "memory").split("used_memory:")[1].split()[0])
    server.ask("CONFIG", "SET", "maxmemory", str(used))
    before = server.ask("DBSIZE")
    for commit in (accept(send("n")), desk.turn(A, acks=(Ack("m"),))):
        with pytest.raises(StoreFullError):
            await store.commit([commit])
    assert [(one.action, "maxmemory" in one.message) for one in caplog.records] == [
        ("store.full", True)
    ]
    assert server.ask("DBSIZE") == before
    assert ids(await store.inbox(A, 0, 10)) == ["m"]
    assert await store.renew("o1", 10) and await desk.register()
    assert ids((await store.poll("o1", 0, 10, 0)).messages) == ["m"]
    waiting = await started(store, store.outcome(A, "m", LONG_S))
    server.ask("CONFIG", "SET", "maxmemory", "0")
    await desk.commit(acks=(Ack("m", b"1"),))
    assert (await soon(waiting)).reply == b"1"
    assert await desk.give("n")


async def test_a_full_server_fails_only_what_was_not_written(server, store, monkeypatch):
    """A call of which a part landed would be told that nothing was written."""
    body = b"x" * 100_000
    commits = [Commit("acme", sends=(send(f"m{at}", body=body),)) for at in range(200)]
    used = int(server.text("INFO", "memory").split("used_memory:")[1].split()[0])
    server.ask("CONFIG", "SET", "maxmemory", str(used + 10_000_000))
    with pytest.raises(StoreUnavailableError) as error:
        await store.commit(commits)
    assert not isinstance(error.value, StoreFullError)
    server.ask("CONFIG", "SET", "maxmemory", "0")
    found = ids(await store.history(A, 0, 1000))
    assert found and found == [f"m{at}" for at in range(len(found))]
    answers = await store.commit(commits)
    assert [isinstance(one, Refused) for one in answers] == [at < len(found) for at in range(200)]
