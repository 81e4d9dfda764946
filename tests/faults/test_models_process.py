"""The scripted server as the process that ships."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from actors.models.request import canonical
from tests.scripted import (
    model_client,
    model_request,
    one_scene,
    scripted_process,
    scripted_server,
    settings_for,
)

SCRIPT = one_scene({"text": "I look.", "tools": [{"name": "read", "input": {"path": "a.py"}}]})


async def test_a_restarted_server_gives_the_same_answer(tmp_path):
    """A job resumed beside a new server would go another way than the one it began."""
    answers = []
    for run in range(2):
        directory = tmp_path / str(run)
        directory.mkdir()
        async with scripted_process(directory, SCRIPT) as server:
            async with model_client(settings_for(server.url)) as rig:
                answers.append((await rig.client.complete(model_request())).raw)
            assert (await server.calls())["complete"] == 1
    async with scripted_server(SCRIPT) as server, model_client(settings_for(server.url)) as rig:
        answers.append((await rig.client.complete(model_request())).raw)
    assert len({canonical(raw) for raw in answers}) == 1


async def test_a_server_killed_in_mid_answer_leaves_no_half_answer(tmp_path):
    """The death of the server would look like the end of its answer."""
    async with scripted_process(tmp_path, SCRIPT) as server:
        await server.faults({"kind": "hold", "afterEvent": 4, "times": None})
        async with model_client(settings_for(server.url)) as rig:
            task = asyncio.ensure_future(rig.client.complete(model_request()))
            await server.until_held()
            os.kill(server.pid, signal.SIGKILL)
            (failure,) = await asyncio.gather(task, return_exceptions=True)
    # The first try was cut, the others found nobody.
    assert (type(failure).__name__, failure.reason) == ("ModelUnavailableError", "connection")
    assert failure.spent_usd > 0


async def test_a_script_that_is_wrong_stops_the_start(tmp_path):
    """The demo would start, and stop in the middle with a riddle."""
    path = tmp_path / "bad.json"
    path.write_text('{"name": "x"}')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "actors.models.scripted", "--script", str(path)),
        *("--port-file", str(tmp_path / "port")),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode != 0
    assert b"bad.json" in said and not (tmp_path / "port").exists()
