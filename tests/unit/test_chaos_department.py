"""The department's facts in a chaos run: each source, with something wrong planted in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.mirror import RepositorySource
from actors.models.prices import PRICES, SCRIPTED_MODEL, settle_usd
from actors.models.request import ModelRequest, Usage
from actors.models.script import answer
from actors.models.wire import to_wire
from actors.verification import department_facts as facts
from actors.verification.arrivals import Arrivals, git, make_repository
from actors.verification.billing import Bill, Charge
from actors.verification.department import Department
from actors.verification.department_facts import Work
from actors.verification.department_work import BOOTH_USD, ENDLESS, LONG, Case, files, script
from actors.verification.sandboxes import SandboxWatch
from actors.workspace import Workspace
from runtime.ids import HOME
from runtime.verify.chaos.live import Live
from runtime.verify.chaos.load import Promises
from runtime.verify.chaos.plan import Plan
from runtime.verify.chaos.report import report
from runtime.verify.history import Fact
from runtime.verify.invariants import unjudged
from runtime.verify.invariants.plans import budgets_kept, effects_approved, no_orphans
from tests.workshop import processes_with, wait_until_ended

SECOND_NS = 1_000_000_000
AT = "2026-11-21T08:00:00.000Z"
AT_NS = 1_795_248_000 * SECOND_NS
FIXED = files("till")["till.py"].replace(" - 1", "")


class Repository:
    """A bare repository that somebody pushes to."""

    def __init__(self, root: Path) -> None:
        self.path = make_repository(root / "till.git", files("till"))
        self.arrivals = Arrivals(self.path, lambda: AT_NS)

    def push(self, ref: str, content: str = FIXED) -> str:
        """Put a change of `till.py` on a ref, on top of `main`; the commit."""
        stream = (
            f"commit {ref}\ncommitter Eve <e@example.org> 1700000001 +0000\ndata 1\nx\n"
            f"from refs/heads/main^0\nM 100644 inline till.py\ndata {len(content)}\n{content}\n"
        )
        git(self.path, "fast-import", "--quiet", "--force", stdin=stream.encode())
        return git(self.path, "rev-parse", ref).decode().strip()

    def seen(self) -> list[str]:
        self.arrivals.look()
        return [one.ref for one in self.arrivals.seen]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def trail(sha256: str, decision: str = "approved", by: str = "ann", at: str = AT) -> list[Any]:
    """The audit trail of one reviewed change."""
    return [
        {"at": AT, "type": "key.created", "name": "ann", "role": "admin"},
        {"at": AT, "type": "key.created", "name": "vic", "role": "viewer"},
        {"at": AT, "type": "issue.submitted", "issueId": "i", "title": "It fails, mark-00001"},
        {"at": AT, "type": "job.queued", "jobId": "j", "issueId": "i", "agentType": "code"},
        {"at": at, "type": "review.decided", "jobId": "j", "artifactHash": sha256,
         "decision": decision, "by": by},
    ]  # fmt: skip


def judged(
    repository: Repository, audit: list[Any], meant: Collection[str] | None = None
) -> list[str]:
    repository.arrivals.look()
    live = Live(lambda: 0)
    hashes = {one.sha256 for one in repository.arrivals.seen}
    facts.tell_approvals(live, audit, hashes if meant is None else meant)
    facts.tell_effects(live, repository.arrivals.seen)
    return [one.text for one in effects_approved(in_time(live))]


def in_time(live: Live) -> list[Fact]:
    """As `merge` orders what was seen outside."""
    ordered = [fact for _, fact in sorted(live.timed, key=lambda one: one[0])]
    for i, fact in enumerate(ordered):
        fact.i = i
    return ordered


def test_what_was_approved_may_arrive_once(repository: Repository) -> None:
    """Every delivery would be a violation, or any number of them none."""
    repository.push("refs/heads/troupe/i-it-fails")
    repository.arrivals.look()
    [arrival] = repository.arrivals.seen
    assert judged(repository, trail(arrival.sha256)) == []
    repository.push("refs/heads/troupe/i-it-fails-2")
    assert judged(repository, trail(arrival.sha256)) == [
        f"{HOME}: an effect of {arrival.sha256} without an approval"
    ]


@pytest.mark.parametrize("wrong", ["nobody", "rejected", "viewer", "author", "later", "another"])
def test_a_ref_that_nobody_approved_is_found(repository: Repository, wrong: str) -> None:
    """A branch could get into a repository around the review."""
    repository.push("refs/heads/troupe/i-it-fails")
    repository.arrivals.look()
    sha256 = repository.arrivals.seen[0].sha256
    audit = {
        "nobody": [],
        "rejected": trail(sha256, decision="rejected"),
        "viewer": trail(sha256, by="vic"),
        "author": trail(sha256, by="code:j"),
        "later": trail(sha256, at="2126-11-21T08:00:00.000Z"),
        "another": trail("ab" * 32),
    }[wrong]
    assert len(judged(repository, audit)) == 1


def test_a_trail_that_claims_an_approval_is_not_believed(repository: Repository) -> None:
    """Our own record could say yes where a person has said no."""
    repository.push("refs/heads/troupe/i-it-fails")
    repository.arrivals.look()
    audit = trail(repository.arrivals.seen[0].sha256)
    assert judged(repository, audit) == []
    assert len(judged(repository, audit, meant=())) == 1


def test_every_ref_that_changes_is_an_arrival(repository: Repository) -> None:
    """A moved `main`, a tag or a removed branch would be no effect."""
    assert repository.seen() == []
    first = repository.push("refs/heads/a")
    assert repository.seen() == ["refs/heads/a"]
    git(repository.path, "update-ref", "refs/tags/v1", first)
    git(repository.path, "update-ref", "refs/heads/main", first)
    git(repository.path, "pack-refs", "--all")
    git(repository.path, "update-ref", "-d", "refs/heads/a")
    assert repository.seen()[1:] == ["refs/heads/a", "refs/heads/main", "refs/tags/v1"]
    assert [one.sha256 for one in repository.arrivals.seen].count("gone") == 1


async def test_a_change_has_the_hash_that_a_person_approves(
    repository: Repository, tmp_path: Path
) -> None:
    """No arrival would fit its approval, and a run would find violations only."""
    source = RepositorySource(str(repository.path))
    space = await Workspace.open(tmp_path / "data", "job_1", source)
    (space.tree_path / "till.py").write_text(FIXED)
    approved = await space.diff(space.base_tree, await space.snapshot())
    await space.close()
    repository.push("refs/heads/troupe/i-it-fails")
    repository.arrivals.look()
    assert repository.arrivals.seen[0].sha256 == hashlib.sha256(approved).hexdigest()


# Money


def request(title: str, role: str = "code") -> ModelRequest:
    return ModelRequest(
        model=SCRIPTED_MODEL, system=f"role: {role}", purpose=role, max_tokens=1_000,
        messages=[{"role": "user", "content": [{"type": "text", "text": title}]}],
    )  # fmt: skip


def charged(bill: Bill, budgets: dict[Work, float]) -> list[str]:
    live = Live(lambda: 0)
    facts.tell_budgets(live, budgets)
    facts.tell_charges(live, bill.charges, {}, {})
    return [one.text for one in budgets_kept(in_time(live))]


def test_the_provider_bills_what_our_record_says() -> None:
    """The rule on money would be held against figures of another world."""
    bill = Bill((script(),), lambda: AT_NS)
    asked = request(Case(0).submission(Path("/r"))["title"])
    bill.begin(asked, to_wire(asked))
    [charge] = bill.charges
    usage = Usage.from_wire(answer((script(),), asked, to_wire(asked)).message["usage"])
    assert charge == Charge(AT_NS, "code", Case(0).mark, asked.digest(), charge.cost_usd)
    assert charge.cost_usd == settle_usd(PRICES[SCRIPTED_MODEL], usage) > 0


def test_a_call_beyond_the_budget_is_found() -> None:
    """An agent could go on when its money is spent."""
    bill = Bill((script(),), lambda: AT_NS)
    case = Case(3)
    asked = request(case.submission(Path("/r"))["title"])
    budgets = case.budgets()
    assert budgets[Work(case.mark, "code")] == BOOTH_USD
    while sum(one.cost_usd for one in bill.charges) < BOOTH_USD:
        bill.begin(asked, to_wire(asked))
    assert charged(bill, budgets) == []
    bill.begin(asked, to_wire(asked))
    assert len(charged(bill, budgets)) == 1
    assert charged(bill, Case(7).budgets()) == [], "another job's"


def test_the_endless_script_is_worth_more_than_its_budget() -> None:
    """No budget would ever be near its end, and the rule would have nothing to find."""
    said, heard = (
        {"role": role, "content": [{"type": "text", "text": LONG}]}
        for role in ("assistant", "user")
    )
    bill = Bill((script(),), lambda: AT_NS)
    asked = request(
        Case(3).submission(Path("/r"))["title"] + "x" * 20_000
    )  # as tools and words have
    for _ in range(ENDLESS):
        bill.begin(asked, to_wire(asked))
        asked = replace(asked, messages=[*asked.messages, said, heard])
    assert sum(one.cost_usd for one in bill.charges) > BOOTH_USD


def test_a_record_that_claims_more_than_the_bill_is_found() -> None:
    """Jobs could say that they cost what nobody has charged."""
    live = Live(lambda: 0)
    charge = Charge(AT_NS, "code", "mark-00001", "d1", 0.5)
    ids = facts.jobs(trail("ab" * 32))
    facts.tell_charges(live, [charge, charge], ids, {("j", "d1"): "round-1"})
    calls = [fact for fact in live.facts if fact.f == "call"]
    assert [(one.key, one.value.cost_usd) for one in calls] == [("j:round-1", 0.5)] * 2


# Sandboxes


class Host:
    """A process with a child that calls itself bwrap, which has a child of its own."""

    def __init__(self, root: Path) -> None:
        bwrap = shutil.copy("/bin/sh", root / "bwrap")
        argv = [str(bwrap), "-c", f"sleep {NAP}; :"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import subprocess; subprocess.call({argv})"]
        )
        self.watch = SandboxWatch(lambda: [self.process.pid], [root / "groups"])
        self.live = Live(lambda: 0)

    def look(self, at_s: float) -> None:
        facts.tell_sandboxes(self.live, self.watch.look(round(at_s * 1000)), round(at_s * 1e9))

    def until_busy(self) -> None:
        while not (self.watch.busy and processes_with(NAP)):
            self.look(0)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def found(self) -> list[str]:
        return [one.text for one in no_orphans(in_time(self.live))]


NAP = f"719.{os.getpid()}"
"""Seconds that the planted process would sleep; only this test run names so many."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        yield made
    finally:
        made.kill()
        end_left()


def end_left() -> None:
    left = [*processes_with(NAP)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until_ended(left)


def test_what_outlives_its_host_is_found(host: Host) -> None:
    """A killed host's commands could work on, and nobody would see it."""
    host.until_busy()
    left = set(processes_with(NAP))
    host.kill()
    host.look(10.0)
    host.look(11.9)
    assert host.found() == []
    assert host.watch.waiting
    host.look(12.1)
    [text] = host.found()
    assert "live 2100 ms after it" in text
    assert left & set(map(int, re.findall(r"(\d+) S\b", text)))
    assert not host.watch.waiting


def test_what_ends_with_its_host_is_judged_and_fine(host: Host) -> None:
    """The rule would have nothing to judge in a run in which all is well."""
    host.until_busy()
    host.kill()
    end_left()
    host.look(10.0)
    host.look(12.1)
    assert host.found() == []
    assert "I20" not in unjudged(host.live.facts)


def test_who_is_in_a_dead_hosts_control_group_is_found(host: Host, tmp_path: Path) -> None:
    """A sandbox that nobody saw begin could outlive its host."""
    host.until_busy()
    group = tmp_path / "groups" / f"{host.process.pid}-7"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    host.kill()
    end_left()
    host.look(10.0)
    host.look(12.1)
    [text] = host.found()
    assert re.search(rf"\b{os.getpid()} [RS]\b", text)


def test_a_host_without_a_sandbox_says_nothing(tmp_path: Path) -> None:
    """A run in which no sandbox was ever hit would count as one that shows something."""
    idle = subprocess.Popen(["sleep", NAP])
    watch = SandboxWatch(lambda: [idle.pid], [])
    watch.look(0)
    idle.kill()
    idle.wait()
    assert watch.look(10_000) == []
    assert not watch.waiting
    assert unjudged([]).count("I20") == 1


def test_a_machine_that_cannot_isolate_is_said_in_the_report() -> None:
    """Three rules would silently not be judged."""
    plan = Plan(left_out="bubblewrap is not installed")
    figure = report(plan, [], Promises(), []).figure
    assert figure["leftOut"] == "bubblewrap is not installed"
    assert {"I12", "I20", "I22 budgets"} <= set(figure["rulesNotJudged"])


def test_too_little_of_the_department_is_said() -> None:
    """A run could be good in which nothing was delivered, spent or hit."""
    said = report(Plan(minutes=10), [], Promises(), [], Department()).figure["tooLittle"]
    for rule in ("I12", "I20", "I22 budgets"):
        assert f"nothing was there to judge by {rule}" in said
    for name in ("delivered", "modelCalls", "overBudget", "hostsLostWithSandboxes"):
        assert any(text.startswith(f"{name} 0, at least") for text in said)
