"""The store behind its socket: who may open it, what a broken connection means, what crosses."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from runtime import errors
from runtime.clock import ManualClock
from runtime.errors import StoreError, StoreUnavailableError
from runtime.store import channel, frames, server, wire
from runtime.store.contract import Ack, Commit, Committed, Fence, Put, Refused, Send
from runtime.store.memory import MemoryStore
from runtime.store.remote import CodedStore, RemoteStore
from runtime.store.server import StoreServer

A = "acme/counter:a"
LONG_S = 30.0


def message(id, body=b"{}"):
    return Commit("acme", sends=(Send(id, "acme/client:test", A, body),))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "store.sock"


@pytest.fixture
async def memory():
    store = MemoryStore(ManualClock())
    yield store
    await store.close()


@pytest.fixture
async def served(memory, path):
    served = StoreServer(memory, path)
    await served.start()
    yield served
    await served.close()


@pytest.fixture
async def remote(served, path):
    remote = RemoteStore(path)
    yield remote
    await remote.close()


# the socket


async def test_the_socket_is_its_owners_alone(served, path):
    """Anybody on the machine could write for every agent."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_socket_left_behind_is_replaced(memory, path):
    """After a kill the store could not be served again."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    served = StoreServer(memory, path)
    await served.start()
    remote = RemoteStore(path)
    assert (await remote.health()).backend == "memory"
    await remote.close()
    await served.close()


async def test_a_file_that_is_no_socket_is_not_replaced(memory, path):
    """A wrong path in the settings would delete somebody's file."""
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(OSError):
        await StoreServer(memory, path).start()
    assert path.read_text() == "precious"


async def test_a_deep_data_directory_works(memory, tmp_path):
    """A socket's address has 107 bytes, a data directory has as many as its user likes."""
    path = tmp_path / ("d" * 100) / ("e" * 100) / "store.sock"
    served = StoreServer(memory, path)
    await served.start()
    remote = RemoteStore(path)
    assert (await remote.health()).backend == "memory"
    await remote.close()
    await served.close()


# frames


async def closed_by_peer(path, sent):
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        (frames.FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        (3).to_bytes(4, "big") + b"\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_ends_only_its_connection(remote, path, sent):
    """A stray client could stop the store, or make it allocate without a bound."""
    assert await closed_by_peer(path, sent)
    assert (await remote.health()).backend == "memory"


async def test_an_answer_that_is_too_long_is_an_error_of_its_call(remote, monkeypatch):
    """It would end every call of its host, and the host's lease, each time it is asked for."""
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 10_000)
    await remote.register("o", "h", LONG_S)
    for number in range(3):
        await remote.commit([message(f"m{number}", b"x" * 4_000)])
    waiting = asyncio.create_task(remote.outcome(A, "m0", LONG_S))
    with pytest.raises(StoreError, match="the answer of inbox has 1") as raised:
        await remote.inbox(A, 0, 10)
    assert not isinstance(raised.value, StoreUnavailableError)
    assert len(await remote.inbox(A, 0, 2)) == 2
    assert (await remote.health()).owners == ("o",) and not waiting.done()
    waiting.cancel()


async def test_a_frame_may_come_byte_by_byte(served, path):
    """A slow or split read would lose a call."""
    body = frames.encode([7, "health", []])
    reader, writer = await asyncio.open_unix_connection(str(path))
    for byte in len(body).to_bytes(4, "big") + body:
        writer.write(bytes([byte]))
        await writer.drain()
    length = int.from_bytes(await asyncio.wait_for(reader.readexactly(4), 5), "big")
    assert frames.decode_answer(await reader.readexactly(length)).id == 7
    writer.close()


async def test_a_lease_ends_with_its_connection(memory, served, remote, path):
    """The agents of a killed host would wait for ten seconds although another is there."""
    other = RemoteStore(path)
    await other.register("o2", "host-2", LONG_S)
    await remote.register("o1", "host-1", LONG_S)
    await remote.commit([message("m")])
    assert await remote.claim("o1", 1)
    waiting = asyncio.create_task(other.poll("o2", 0, 10, LONG_S))
    await remote.close()
    assert (await asyncio.wait_for(waiting, 5.0)).ready == 1
    assert (await memory.health()).owners == ("o2",)
    await other.close()


async def test_an_unknown_method_is_an_error_of_its_call(remote):
    """A newer client would kill the connection of an older store."""
    method = wire.Method("no_such", False, None, wire.HEALTH.arguments, wire.HEALTH.result)
    with pytest.raises(StoreError, match="no_such"):
        await remote._call(method)
    assert (await remote.health()).backend == "memory"


async def test_a_call_beyond_the_bound_is_refused_here(remote, monkeypatch):
    """A huge commit would break the connection of everybody in this process."""
    monkeypatch.setattr("runtime.store.remote.COMMIT_BYTES_MAX", 1000)
    with pytest.raises(ValueError, match="at most 1000"):
        await remote.commit([message("m", b"x" * 1000)])
    assert isinstance((await remote.commit([message("m")]))[0], Committed)


async def test_a_connection_with_too_many_calls_waits(memory, path, monkeypatch):
    """One client could fill the store's memory with parked calls."""
    monkeypatch.setattr(server, "CALLS_MAX", 3)
    served = StoreServer(memory, path)
    await served.start()
    remote = RemoteStore(path)
    await memory.commit([message("m")])
    await memory.register("o", "h", 10)
    parked = [asyncio.create_task(remote.outcome(A, "m", LONG_S)) for _ in range(3)]
    late = asyncio.create_task(remote.health())
    async with asyncio.timeout(5):
        while sum(len(one._calls) for one in served._connections) < 3:
            await asyncio.sleep(0)
    assert not late.done()
    [claimed] = await memory.claim("o", 1)
    fence = Fence(memory.incarnation, claimed.epoch)
    await memory.commit([Commit("acme", A, fence, acks=(Ack("m"),))])
    assert (await asyncio.wait_for(late, 5)).backend == "memory"
    await asyncio.gather(*parked)
    await remote.close()
    await served.close()


# errors


class Failing:
    """A store whose every call fails in one way."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        async def fail(*args):
            raise self.error

        return fail


class Direct:
    """A transport without a wire, such as a call of an actor would be."""

    def __init__(self, store):
        self.store = store
        self.calls = []

    async def call(self, method, payload, wait_s):
        self.calls.append((method, wait_s))
        await asyncio.sleep(0)
        return await wire.answer(self.store, method, payload)

    async def close(self):
        pass


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type)
     and issubclass(kind, errors.TroupeError)],
)  # fmt: skip
async def test_an_error_comes_back_as_the_class_it_was(kind):
    """A caller could not tell a full disk from a wrong argument."""
    arguments = ("one", 2, "three") if kind is errors.InvalidScheduleError else ("one", 2)
    remote = CodedStore(Direct(Failing(kind(*arguments))))
    with pytest.raises(kind) as caught:
        await remote.renew("o", 1)
    assert type(caught.value) is kind and caught.value.args == arguments


async def test_a_defect_of_the_store_is_told_to_its_caller():
    """A caller would wait for ever when the store has a bug."""
    remote = CodedStore(Direct(Failing(ZeroDivisionError("by zero"))))
    with pytest.raises(StoreError, match="ZeroDivisionError: by zero"):
        await remote.renew("o", 1)


async def test_arguments_of_a_wrong_type_are_the_callers_error(remote):
    """A bug of the caller would reach the store."""
    with pytest.raises(ValueError):
        await remote.renew(7, 1)


# any transport


async def test_the_contract_works_over_any_transport(memory):
    """Hosts on other nodes would need a second codec."""
    transport = Direct(memory)
    remote = CodedStore(transport)
    assert await remote.commit([message("m")]) == [Committed(0, (1,), 0)]
    await remote.poll("o", 0, 10, 0.25)
    assert transport.calls == [("commit", 0.0), ("poll", 0.25)]


async def test_commits_of_one_turn_travel_together(memory):
    """Every small commit would pay for its own frame."""
    transport = Direct(memory)
    remote = CodedStore(transport)
    await memory.commit([message("m3")])
    answers = await asyncio.gather(*(remote.commit([message(f"m{n}")]) for n in range(5)))
    assert len(transport.calls) == 2, "the first alone, as none was on its way, then the others"
    assert [type(answer) for [answer] in answers] == [
        Committed, Committed, Committed, Refused, Committed,
    ]  # fmt: skip


async def test_what_travels_together_keeps_the_bounds_of_a_call(memory, monkeypatch):
    """Two full calls together would be one that is refused."""
    transport = Direct(memory)
    remote = CodedStore(transport)
    batches = [[message(f"{n}-{m}") for m in range(600)] for n in range(3)]
    answers = await asyncio.gather(*(remote.commit(batch) for batch in batches))
    assert [len(answer) for answer in answers] == [600] * 3
    assert len(transport.calls) == 3
    monkeypatch.setattr("runtime.store.remote.MERGED_BYTES_MAX", 2500)
    big = [message(f"big-{n}", b"x" * 1000) for n in range(5)]
    await asyncio.gather(*(remote.commit([one]) for one in big))
    assert len(transport.calls) == 6, "one alone, then two and two"


async def test_a_bad_call_does_not_fail_those_that_travel_with_it(memory):
    """One caller's nonsense would fail another's commit."""

    class Picky(Direct):
        async def call(self, method, payload, wait_s):
            if b"nonsense" in payload:
                return await wire.answer(Failing(StoreError("no")), method, payload)
            return await super().call(method, payload, wait_s)

    remote = CodedStore(Picky(memory))
    calls = [remote.commit([message(id)]) for id in ("m1", "nonsense", "m2")]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert type(second) is StoreError
    assert (first[0].seqs, third[0].seqs) == ((1,), (2,))


@pytest.mark.parametrize("key", [Path("a/b"), 1 << 70])
async def test_a_commit_without_a_form_as_bytes_is_its_callers_error(memory, key):
    """Whoever gathers commits of many could not tell it from a store that has failed."""
    remote = CodedStore(Direct(memory))
    bad = Commit("acme", puts=(Put("c", key, "acme", b""),))
    with pytest.raises(ValueError, match="can't be written down"):
        await remote.commit([bad])
    calls = [remote.commit([one]) for one in (message("m1"), message("m2"), bad, message("m3"))]
    *right, last = await asyncio.gather(
        calls[0], calls[1], calls[3], calls[2], return_exceptions=True
    )
    assert isinstance(last, ValueError)
    assert [answer.seqs for [answer] in right] == [(1,), (2,), (3,)]


async def test_a_transport_that_fails_leaves_nobody_waiting(memory):
    """Commits that travel together would all hang at one that the transport can't carry."""

    class Fails(Direct):
        async def call(self, method, payload, wait_s):
            if b"nonsense" in payload:
                raise TypeError("no way to carry this")
            return await super().call(method, payload, wait_s)

    remote = CodedStore(Fails(memory))
    calls = [remote.commit([message(id)]) for id in ("m1", "m2", "nonsense", "m3")]
    async with asyncio.timeout(5):
        *right, bad, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(bad, TypeError)
    assert [answer.seqs for [answer] in (*right, last)] == [(1,), (2,), (3,)]


# broken connections


class Breaking:
    """A transport that breaks some of its calls, before or after they were done."""

    def __init__(self, store, breaks):
        self.store = store
        self.breaks = breaks
        self.calls = 0

    async def call(self, method, payload, wait_s):
        self.calls += 1
        body = await wire.answer(self.store, method, payload)
        if self.calls <= self.breaks:
            raise StoreUnavailableError("the connection broke")
        return body


async def test_an_unknown_outcome_of_a_commit_is_told(memory):
    """A commit would be repeated unseen, and its caller believe it was refused."""
    remote = CodedStore(Breaking(memory, breaks=1))
    with pytest.raises(StoreUnavailableError):
        await remote.commit([message("m")])
    assert await remote.commit([message("m")]) == [Refused("duplicate", "m")]


async def test_an_unknown_outcome_of_a_claim_is_told(memory):
    """Agents would be held by an owner that believes it got none."""
    await memory.commit([message("m")])
    await memory.register("o", "h", 10)
    remote = CodedStore(Breaking(memory, breaks=1))
    with pytest.raises(StoreUnavailableError):
        await remote.claim("o", 10)


async def test_a_broken_read_is_repeated_a_few_times(memory):
    """Every blip would be everybody's error, or an outage everybody's endless loop."""
    await memory.commit([message("m")])
    transport = Breaking(memory, breaks=2)
    assert len(await CodedStore(transport).inbox(A, 0, 10)) == 1
    transport = Breaking(memory, breaks=99)
    with pytest.raises(StoreUnavailableError):
        await CodedStore(transport).inbox(A, 0, 10)
    assert transport.calls == 3


async def test_a_repeated_wait_waits_only_for_what_is_left(memory):
    """A long poll over a bad connection would last several times as long."""
    waits = []

    class Slow(Breaking):
        async def call(self, method, payload, wait_s):
            waits.append(wait_s)
            return await super().call(method, payload, wait_s)

    remote = CodedStore(Slow(memory, breaks=1))
    await remote.tail(0, 10, 0.05)
    assert waits[0] == 0.05 and waits[1] < 0.01


async def test_a_connection_is_made_anew(memory, served, remote, path):
    """A restart of the store would need a restart of every host."""
    waiting = asyncio.create_task(remote.commit([message("m1")]))
    await waiting
    await served.close()
    again = StoreServer(memory, path)
    await again.start()
    assert len(await remote.inbox(A, 0, 10)) == 1
    await again.close()


async def test_calls_in_flight_end_when_the_connection_breaks(served, remote, monkeypatch):
    """A host would wait for the answer of a store that is gone."""
    monkeypatch.setattr(channel, "CONNECT_WAIT_S", 0.0)
    await remote.commit([message("m")])
    waiting = asyncio.create_task(remote.outcome(A, "m", LONG_S))
    await remote.health()
    await served.close()
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(waiting, 5)


async def test_a_connection_that_breaks_before_its_first_call_holds_nobody(served, path):
    """A host whose renewal met a store that was just killed would lose its agents to another."""

    class Unlucky(channel.SocketTransport):
        async def _connected(self):
            made = await super()._connected()
            made.transport.abort()
            await asyncio.sleep(0.01)  # the end of the connection is told, to no call at all
            return made

    unlucky = Unlucky(path)
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailableError, match="broke"):
            await unlucky.call("health", wire.encode(()), 0.0)
    await unlucky.close()


async def test_a_call_waits_for_a_store_that_is_coming_up(memory, path):
    """Processes that start together would fail by the order of their start."""
    remote = RemoteStore(path)
    early = asyncio.create_task(remote.health())
    async with asyncio.timeout(5):
        while remote._transport._connecting is None:  # it has begun to try
            await asyncio.sleep(0)
    served = StoreServer(memory, path)
    await served.start()
    assert (await asyncio.wait_for(early, 5)).backend == "memory"
    await remote.close()
    await served.close()


async def test_without_a_store_a_call_fails_soon(path, monkeypatch):
    """A request would hang while the store is down."""
    monkeypatch.setattr(channel, "CONNECT_WAIT_S", 0.05)
    with pytest.raises(StoreUnavailableError, match=r"store\.sock"):
        await asyncio.wait_for(RemoteStore(path).health(), 5)


async def test_a_store_that_does_not_answer_is_given_up(path, monkeypatch):
    """A stopped store process would stop every host for ever."""
    monkeypatch.setattr(channel, "ANSWER_MARGIN_S", 0.05)
    path.parent.mkdir()
    mute = await asyncio.start_unix_server(lambda reader, writer: None, path)
    remote = RemoteStore(path)
    with pytest.raises(StoreUnavailableError, match="no answer to commit"):
        await asyncio.wait_for(remote.commit([message("m")]), 5)
    await remote.close()
    mute.close()


async def test_calls_of_a_peer_that_is_gone_are_cancelled(memory, served, path):
    """Dead hosts' polls would pile up in the store."""
    await memory.commit([message("m")])
    remote = RemoteStore(path)
    waiting = asyncio.create_task(remote.outcome(A, "m", LONG_S))
    await remote.health()
    [connection] = served._connections
    [call] = connection._calls
    await remote.close()
    with pytest.raises(StoreUnavailableError):
        await waiting
    await asyncio.wait_for(asyncio.wait([call]), 5)
    assert call.cancelled() and not served._connections


async def test_the_server_leaves_the_store_open(memory, served):
    """Serving and owning a store would be one thing."""
    await served.close()
    assert (await memory.health()).backend == "memory"


def test_every_method_of_the_contract_is_on_the_wire():
    """A method would work here and fail in another process."""
    verbs = vars(wire.Store) | vars(wire.Upkeep) | vars(wire.Copies)
    methods = {name for name in verbs if not name.startswith("_")}
    assert set(wire.METHODS) == methods - {"close"}
    assert all(hasattr(CodedStore, name) for name in methods)


def test_what_may_not_be_done_twice_is_not_repeated():
    """A retried commit or claim would look refused, a retried poll hide that a lease has gone."""
    once = {name for name, method in wire.METHODS.items() if not method.repeatable}
    assert once == {"commit", "claim", "poll"}
