"""The manual has every figure, log line and public event, and the dashboard every figure."""

from __future__ import annotations

import ast
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.jobs.rounds import OUTCOMES
from runtime.metrics import METRICS
from runtime.observed import OPERATIONS
from runtime.plans import logged
from runtime.standing import COUNTED

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana.json").read_text())


def constants() -> list[str]:
    """Every string constant of the runtime and the department."""
    found = []
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def section(title: str) -> str:
    """What a heading of the manual has below it."""
    return MANUAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> set[str]:
    """The names in the first column of a section's table."""
    cells = re.findall(r"^\| (`[^|]+`) \|", section(title), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_metric_is_in_the_table_with_its_kind_and_label_and_no_other() -> None:
    """An operator would look for a figure that is not there, or not know one that is."""
    rows = re.findall(r"^\| `ray_(\w+)` \| (\w+) \| (.*?) \|", section("Metrics"), re.MULTILINE)
    suffix = {"counter": "_total", "gauge": "", "histogram": "_bucket_total"}
    assert {(name, kind, label.strip("`")) for name, kind, label in rows} == {
        (metric.name + suffix[metric.kind], metric.kind, metric.label) for metric in METRICS
    }
    used = {text for text in constants() if re.fullmatch(r"troupe_[a-z_]+", text)}
    assert {metric.name for metric in METRICS} <= used


def test_every_log_action_is_in_the_table_and_no_other() -> None:
    """An operator would search the documentation for a name in the log and find nothing."""
    written = set(OPERATIONS) | set(logged.OPERATIONS)
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            written |= set(re.findall(r'"action": "([a-z_.]+)"', path.read_text()))
    named = first_column("Log actions") - {"agent.<name>"}
    phases = {name for name in named if name.startswith("cluster.")}
    assert named - phases == {name for name in written if not name.startswith("cluster.")}
    assert phases == {f"cluster.{one}" for one in
                      ("starting", "ready", "stopping", "failed", "restarted")}  # fmt: skip


def levels_in_the_table() -> dict[str, str]:
    """Action -> level, as the manual has them; a cell of several has one for each, or for all."""
    found = {}
    rows = re.findall(r"^\| (`[^|]+`) \| ([A-Z, ]+) \|", section("Log actions"), re.MULTILINE)
    for cell, told in rows:
        names, levels = re.findall(r"`([^`]+)`", cell), told.split(", ")
        levels = levels if len(levels) == len(names) else levels * len(names)
        found.update(zip(names, levels, strict=True))
    return found


def levels_in_the_code() -> dict[str, set[str]]:
    """Action -> the levels at which it is written, where a call says both."""
    found = {name: {logging.getLevelName(level)} for name, level in
             (*OPERATIONS.items(), *logged.OPERATIONS.items())}  # fmt: skip
    for package in ("runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                for said in (one.value for one in getattr(node, "keywords", ()) if one.arg):
                    for name in re.findall(r"'action': '([a-z_.]+)'", ast.unparse(said)):
                        level = node.func.attr  # type: ignore[attr-defined]
                        level = {"exception": "error"}.get(level, level).upper()
                        found.setdefault(name, set()).add(level)
    return found


def test_every_log_action_has_the_level_of_the_table() -> None:
    """Who alerts on ERROR would not hear of it, or who reads INFO not see it."""
    table, code = levels_in_the_table(), levels_in_the_code()
    assert {name: {table[name]} for name in code} == code


def test_every_public_event_is_in_the_table_and_no_other() -> None:
    """A client would meet an event nobody has described, or wait for one that never comes."""
    pattern = r"(?:agent|job|issue|review|schedule|scheduler):[a-z_]+"
    written = {text for text in constants() if re.fullmatch(pattern, text)} - {"scheduler:main"}
    named = first_column("Public events") - {"agent:<name>"}
    assert written <= named
    made = {  # by f-strings; the words come from these
        **{f"job:{word}": word for word in ("waiting", "paused", "failed", "cancelled")},
        **{f"agent:{word}": word for word in ("completed",)},
        **{f"review:{word}": word for word in ("requested", "approved", "rejected", "superseded")},
        "issue:message": "message",
    }
    words = set(constants())
    assert {event for event, word in made.items() if word in words} == set(made)
    assert named - written - set(made) == {"issue:<status>"}


RAYS_LABELS = {"WorkerId", "NodeAddress", "Component", "SessionName", "Version"}
SECONDS, RATE, SHARE, COUNT = "s", {"ops", "reqps"}, "percentunit", "short"


def exported() -> dict[str, tuple[str, set[str]]]:
    """What Prometheus shows: name -> kind of series, its labels; by the manual's table."""
    rows = re.findall(r"^\| `(ray_\w+)` \| (\w+) \| (.*?) \|", section("Metrics"), re.MULTILINE)
    found = {}
    for name, kind, label in rows:
        labels = {label.strip("` ")} - {""} | RAYS_LABELS
        if kind == "histogram":
            found[name] = ("bucket", labels | {"le"})
            for part in ("sum", "count"):
                found[name.replace("_bucket_", f"_{part}_")] = ("counter", labels)
        else:
            found[name] = (kind, labels)
    return found


def label_values() -> dict[str, set[str]]:
    """The values of each label of which the manual's table names any."""
    found: dict[str, set[str]] = {}
    for label, meaning in re.findall(r"^\| `ray_\w+` \| \w+ \| `(\w+)` \| (.*) \|$",
                                     section("Metrics"), re.MULTILINE):  # fmt: skip
        if values := set(re.findall(r"`(\w+)`", meaning)):
            found.setdefault(label, set()).update(values)
    return found


def test_the_table_names_every_end_of_a_run_and_every_state_of_a_job() -> None:
    """A rate would be asked for by a word that no run ever ends with."""
    values = label_values()
    assert values["outcome"] == set(OUTCOMES)
    assert values["state"] == set(COUNTED)


@dataclass(frozen=True)
class Selector:
    """`name{label="value"}[5m]`, and the function that it is the argument of."""

    name: str
    matched: dict[str, set[str]]
    """By the label the values it may have."""
    over: str
    function: str


def selectors(expression: str) -> list[Selector]:
    pattern = r"(?:(\w+)\()?\b(ray_\w+)(\{[^}]*\})?(\[\w+\])?"
    return [
        Selector(
            name,
            {
                label: set(values.split("|"))
                for label, values in re.findall(r'(\w+)\s*(?:=~|=|!=|!~)\s*"([^"]*)"', labels)
            },
            over,
            function,
        )
        for function, name, labels, over in re.findall(pattern, expression)
    ]


def targets() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(panel, target) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_every_metric_of_the_manual_and_no_other() -> None:
    """A panel would stay empty for ever, or a figure be seen by nobody."""
    shown = {one.name for _, target in targets() for one in selectors(target["expr"])}
    known = exported()
    assert shown <= known.keys()
    parts = ("_sum_total", "_count_total")
    assert {name for name in known if not name.endswith(parts)} <= shown


@pytest.mark.parametrize(
    ("panel", "target"), targets(), ids=[f"{p['title']}-{t['refId']}" for p, t in targets()]
)
def test_a_query_of_the_dashboard_uses_each_metric_as_what_it_is(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    """A counter would be shown as it stands, a label be asked for that is never there."""
    expression, known = target["expr"], exported()
    assert expression.count("(") == expression.count(")")
    found = selectors(expression)
    labels = set.intersection(*(known[one.name][1] for one in found))
    for one in found:
        kind, has = known[one.name]
        assert (one.function == "rate") == bool(one.over) == (kind != "gauge"), one
        assert one.matched.keys() <= has, one
        for label, values in one.matched.items():
            assert values <= label_values().get(label, values), one
        assert (kind == "bucket") == expression.startswith("histogram_quantile("), one
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    assert grouped <= labels
    assert any(known[one.name][0] == "bucket" for one in found) == ("le" in grouped)
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert named <= (grouped or labels)
    assert named == grouped - {"le"} or not grouped
    assert panel["fieldConfig"]["defaults"]["unit"] in units_of(expression, found)


OF_EACH_REPLICA = {"ray_troupe_streams"}


def test_a_figure_of_one_process_is_not_added_to_that_of_the_one_before() -> None:
    """Ray tells the last words of a dead process for twenty seconds: a restart would double it."""
    for _, target in targets():
        for one in selectors(target["expr"]):
            if exported()[one.name][0] == "gauge":
                added = target["expr"].startswith("sum")
                assert added == (one.name in OF_EACH_REPLICA), one.name


def units_of(expression: str, found: list[Selector]) -> set[str]:
    """The units in which a query's result can be read."""
    if "/" in expression:
        return {SHARE}
    if any(one.name.removesuffix("_bucket_total").endswith("_seconds") for one in found):
        return {SECONDS}
    return RATE if found[0].function == "rate" else {COUNT}


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    """One would cover another, or a query its neighbour."""
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & seen and max(x for x, _ in cells) < 24
        seen |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
