"""The public port: opened once, answered by whichever replica is there."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from runtime.cluster.control import _await_ready
from runtime.cluster.port import ADDRESS, Port, PortTakenError, answered, free_port
from runtime.cluster.settings import ClusterError, DataDir, State
from tests.troupe import soon


class Replica:
    """Says who it is; a request for `/wait` is never answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0

    async def __call__(self, scope, receive, send) -> None:
        self.taken += 1
        if scope["path"] == "/wait":
            await asyncio.Event().wait()
        body = self.name.encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def number():
    return free_port()


@pytest.fixture
def port(number, tmp_path):
    opened = Port(number, tmp_path / "port.sock")
    opened.open()
    yield tmp_path / "port.sock"
    opened.close()


async def asked(number: int, path: str = "/") -> str:
    return await told(*await asyncio.open_connection(ADDRESS, number), path)


async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str = "/") -> str:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n")[2].decode()


async def test_who_comes_while_no_replica_is_there_waits_for_one(port, number):
    """Each replacement of the last replica would refuse connections for seconds."""
    connection = await soon(asyncio.open_connection(ADDRESS, number))
    async with answered(Replica("late"), port):
        assert await soon(told(*connection)) == "late"


async def test_every_replica_answers_and_the_end_of_one_takes_nothing_from_the_rest(port, number):
    """One replica could serve at a time, and its end would close the port."""
    one, other = Replica("one"), Replica("other")
    async with answered(other, port):
        async with answered(one, port):
            while not (one.taken and other.taken):
                await soon(asked(number))
        assert {await soon(asked(number)) for _ in range(10)} == {"other"}


async def test_a_request_that_does_not_end_holds_up_nobody(port, number, monkeypatch):
    """A stream would keep its replica, and with it a new version, for ever."""
    monkeypatch.setattr("runtime.cluster.port.END_S", 0.1)
    replica = Replica("one")
    async with asyncio.timeout(20):
        async with answered(replica, port):
            endless = asyncio.create_task(asked(number, "/wait"))
            while not replica.taken:
                await asyncio.sleep(0)
            assert await asked(number) == "one"
        await endless


async def test_only_this_machine_can_connect(port, number):
    """The API would be open to the network."""
    with open("/proc/net/tcp") as listening:  # noqa: PTH123 - a file of the kernel's
        local = {line.split()[1] for line in listening if line.split()[3] == "0A"}
    assert {one for one in local if one.endswith(f":{number:04X}")} == {f"0100007F:{number:04X}"}


def test_a_port_that_is_taken_is_named(number, tmp_path):
    """Two deployments would each answer some of the other's requests."""
    with socket.socket() as taken:
        taken.bind((ADDRESS, number))
        taken.listen()
        with pytest.raises(PortTakenError, match=str(number)):
            Port(number, tmp_path / "port.sock").open()


@pytest.mark.parametrize("told", [True, False])
def test_what_says_all_there_is_comes_without_the_log(tmp_path, told):
    """Whoever has taken a port would be told so by a stack trace."""
    directory, said = DataDir(tmp_path), []
    directory.logs.mkdir()
    (directory.logs / "supervisor.log").write_text("Traceback (most recent call last):")
    State("failed", "the port is taken", 1, "", told=told).write(directory.state)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(ClusterError, match="the port is taken") as raised:
        _await_ready(directory, ended, said.append)
    assert ("Traceback" in str(raised.value)) is not told
    assert said == []
