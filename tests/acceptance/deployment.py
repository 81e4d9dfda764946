"""A real deployment for tests: `troupe up` in a temporary folder, and ways to kill it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.cluster import Running, down, running
from runtime.cluster.control import processes
from runtime.cluster.port import free_port

ROOT = Path(__file__).resolve().parents[2]
TROUPE = [sys.executable, "-m", "actors.cli"]
SAMPLE = ROOT / "examples" / "sample_repository"
SAMPLE_ISSUE = json.loads((ROOT / "examples" / "sample_issue.json").read_text())
TITLES = {
    "host": "ray::AgentHost",
    "scheduler": "ray::Scheduler",
    "replica": "ray::ServeReplica",
}
"""How the processes that tests kill call themselves."""


class Deployment:
    """One `troupe up` with its own data directory and port."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.port = free_port()
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANTHROPIC_", "TROUPE_", "RAY_"))
        }
        self.env |= {
            "TROUPE_DATA": str(data),
            "TROUPE_REPOSITORY_ROOTS": str(data),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            **environment,
        }

    def troupe(self, *arguments: str, check: bool = True, timeout_s: float = 240) -> str:
        """Run the command as a user would; returns what it printed."""
        done = subprocess.run(
            [*TROUPE, *arguments],
            env=self.env,
            cwd=self.data,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"troupe {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout + done.stderr

    def up(self) -> Running:
        self.troupe("up", "--port", str(self.port))
        found = running(self.data)
        assert found is not None
        return found

    def down(self) -> None:
        down(self.data)

    @property
    def key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One HTTP request, repeated while the API is being restarted; JSON answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
            headers={
                "Authorization": f"Bearer {self.key}",
                "Content-Type": "application/json",
                **({"Idempotency-Key": digest(path, body)} if method == "POST" else {}),
            },
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=15) as answer:
                    text = answer.read()
                    is_json = "json" in answer.headers.get("Content-Type", "")
                    return json.loads(text) if is_json else text.decode()
            except urllib.error.HTTPError as error:
                if error.code not in (500, 502, 503) or time.monotonic() > deadline:
                    raise AssertionError(
                        f"{method} {path}: {error.code} {error.read()!r}"
                    ) from error
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def until(self, path: str, done: Callable[[Any], bool], within_s: float = 120) -> Any:
        """Poll a resource until it is as wanted."""
        deadline = time.monotonic() + within_s
        while True:
            found = self.call("GET", path)
            if done(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} did not get there in {within_s} s: {found}")
            time.sleep(0.1)

    def wait(self, look: Callable[[], Any], what: str, within_s: float) -> Any:
        """Look until there is something, and return it."""
        deadline = time.monotonic() + within_s
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < deadline, f"{what} was not there within {within_s} s"
            time.sleep(0.1)

    def repository(self, name: str) -> Path:
        """A git repository with the sample in it, below the allowed root."""
        path = self.data / "repositories" / name
        shutil.copytree(SAMPLE, path, ignore=shutil.ignore_patterns("__pycache__"))
        git(path, "init", "-q", "-b", "main")
        git(path, "add", "-A")
        git(path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "sample")
        return path

    def submit(self, repository: Path, **changed: Any) -> str:
        body = {**SAMPLE_ISSUE, **changed}
        body["context"] = {**body.get("context", {}), "repository": str(repository)}
        return str(self.call("POST", "/api/issues", body)["id"])

    def approve(self, issue: str) -> None:
        """Wait for the issue's review and approve what it shows."""
        self.until(f"/api/issues/{issue}", lambda found: found["status"] == "review")
        review = self.review(issue)
        self.call(
            "POST",
            f"/api/reviews/{review['id']}/approve",
            {"artifactHash": review["artifactHash"], "comment": "fine"},
        )

    def completed(self, issue: str) -> Any:
        """The issue once it is completed; one that failed is told at once."""
        done = self.until(
            f"/api/issues/{issue}", lambda found: found["status"] in ("completed", "failed")
        )
        assert done["status"] == "completed", done
        return done

    def final_tree(self, issue: str, repository: Path) -> str:
        """The tree that a completed issue has left on its branch."""
        branch = self.completed(issue)["resolution"]["branch"]
        return git(repository, "rev-parse", f"{branch}^{{tree}}").strip()

    def under_way(self, issue: str) -> Any:
        """The issue once its job is past its first step."""
        return self.until(
            f"/api/issues/{issue}", lambda found: (found.get("job") or {}).get("progress", 0) > 10
        )

    def review(self, issue: str) -> Any:
        pending = self.call("GET", "/api/reviews?status=pending&limit=100")["items"]
        [review] = [one for one in pending if one["issueId"] == issue]
        return review

    def pids(self, kind: str) -> list[int]:
        """Processes of a kind: host, scheduler, store or replica."""
        return [pid for pid in processes(self.data) if _title(pid).startswith(TITLES[kind])]

    def kill(self, kind: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal to one process of a kind; False when none runs just now."""
        for pid in self.pids(kind)[:1]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return False
            return True
        return False

    def kill_everything(self) -> int:
        """SIGKILL every process of the deployment, the supervisor too."""
        return kill_all(lambda: processes(self.data))


@contextmanager
def deployed(data: Path, **environment: str) -> Iterator[Deployment]:
    """A deployment that is up, and is gone afterwards."""
    deployment = Deployment(data, **environment)
    data.mkdir(parents=True, exist_ok=True)
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.down()
        deployment.kill_everything()


def kill_all(look: Callable[[], list[int]]) -> int:
    """SIGKILL every process that is seen until none is; returns how many there were."""
    count = 0
    while pids := look():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                count += 1
            except ProcessLookupError:
                continue
    return count


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def digest(path: str, body: Any) -> str:
    """The same request has the same key, so that repeating it is safe."""
    return hashlib.sha256(json.dumps([path, body]).encode()).hexdigest()


def git(path: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(path), *arguments], check=True, capture_output=True, text=True
    ).stdout
