"""The pool of hosts in a running deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cluster.pool import SHRINK_AFTER_S
from tests.acceptance.deployment import deployed

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ISSUES = 7


def test_hosts_come_with_the_queue_and_go_when_it_is_done(tmp_path: Path) -> None:
    """A backlog would wait for one host, and an idle night would keep three."""
    with deployed(tmp_path, TROUPE_HOSTS="1", TROUPE_HOSTS_MAX="3") as troupe:
        assert len(troupe.pids("host")) == 1
        repositories = [troupe.repository(f"r{number}") for number in range(ISSUES)]
        issues = [troupe.submit(place, externalId=place.name) for place in repositories]
        troupe.wait(lambda: len(troupe.pids("host")) >= 2, "a second host", 60)
        for issue in issues:
            troupe.until(f"/api/issues/{issue}", lambda found: found["status"] == "review")
        within_s = 3 * SHRINK_AFTER_S
        troupe.wait(lambda: len(troupe.pids("host")) == 1, "one host again", within_s)
        # What a host that has gone held is worked on by the one that is left.
        troupe.approve(issues[0])
        troupe.completed(issues[0])
