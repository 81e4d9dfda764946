"""An issue goes in, reviewed work comes out: on real Ray, real git, the real scripted server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.acceptance.deployment import ROOT, Deployment, git

pytestmark = pytest.mark.ray


def test_an_issue_becomes_a_reviewed_branch(troupe: Deployment) -> None:
    """The walk would break somewhere between HTTP and git."""
    repository = troupe.repository("one")
    (repository / "notes.txt").write_text("not committed")
    before = git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")
    issue = troupe.submit(repository)
    troupe.approve(issue)
    branch = troupe.completed(issue)["resolution"]["branch"]
    assert branch.startswith("troupe/")
    assert git(repository, "diff", "--name-only", f"main..{branch}").split() != []
    after = git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")
    assert after == before
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", branch], check=True)
    subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=repository, check=True)


def test_ray_get_answers(troupe: Deployment) -> None:
    """Python clients could not use Troupe as the README shows."""
    program = (
        "import ray\n"
        "from runtime import connect\n"
        "troupe = connect()\n"
        "scheduler = ray.get_actor('scheduler', namespace='troupe')\n"
        "print(ray.get(scheduler.status.remote())['state'])\n"
        "registry = ray.get_actor('registry', namespace='troupe')\n"
        "ray.get(registry.register_service.remote('billing', {'team': 'a'}, {'http': 'x'}))\n"
        "print(len(ray.get(registry.discover_service.remote({'team': 'a'}))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=troupe.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["IDLE", "1"]


def test_an_agent_of_ones_own_runs_in_a_running_troupe(troupe: Deployment) -> None:
    """The example of the README would not run, or would forget."""
    for expected in ("2", "4"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "durable_counter.py")],
            env=troupe.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected
