"""What a change may bring in: no secrets, no strangers' code, no odd files."""

from __future__ import annotations

import json
import time

import pytest

from actors.gates import GATES, Candidate, GateInputError, GateResult, run_gates
from actors.gates.dependencies import dependencies
from actors.gates.filesystem import plain_files
from actors.gates.limits import not_empty, size
from actors.gates.protected import ci_files, protected_paths
from actors.gates.secrets import hidden_text, secrets
from actors.records import FINDINGS_MAX
from tests.candidates import GREEN, RED, FileChange, candidate, policy

FIX = {
    "calc.py": "def halve(n):\n    return n / 2\n",
    "test_calc.py": "def test_h():\n    assert h\n",
}
BROKEN = {**FIX, "calc.py": "def halve(n):\n    return n // 2\n"}


def added(path: str, text: str | bytes) -> Candidate:
    return candidate({}, {path: text})


def changed(path: str, old: str, new: str) -> Candidate:
    return candidate({path: old}, {path: new})


def test_an_honest_fix_passes_every_gate() -> None:
    """Would stop the very work the gates are to let through."""
    report = run_gates(candidate(BROKEN, FIX))
    assert report.verdict == "passed"
    assert [item.gate for item in report.results] == [name for name, _ in GATES]
    assert all(item.verdict == "passed" and item.message for item in report.results)


def test_the_worst_verdict_is_the_reports() -> None:
    """Would let one green hide another gate's red, or an unknown look green."""
    person = run_gates(candidate(BROKEN, {**FIX, "Dockerfile": "FROM x\n"}))
    assert person.verdict == "needs_human"
    unknown = run_gates(candidate(BROKEN, {**FIX, "Dockerfile": "FROM x\n"}, after=None))
    assert unknown.verdict == "unknown"
    red = run_gates(candidate(BROKEN, {**FIX, "Dockerfile": "FROM x\n"}, after=RED))
    assert red.verdict == "failed"


def test_a_gate_that_breaks_is_unknown_and_the_others_go_on() -> None:
    """Would take a crashed check for a passed one."""

    def broken(_: Candidate) -> GateResult:
        raise ZeroDivisionError

    def blind(_: Candidate) -> GateResult:
        raise GateInputError("a.py", "is not in the tree")

    report = run_gates(candidate(BROKEN, FIX), [("x", broken), ("y", blind), *GATES])
    assert report.verdict == "unknown"
    assert [item.verdict for item in report.results[:3]] == ["unknown", "unknown", "passed"]
    assert "ZeroDivisionError" in report.results[0].message
    assert "a.py; is not in the tree" in report.results[1].message


def test_a_file_that_can_not_be_read_makes_the_gate_unknown() -> None:
    """Would scan nothing and find nothing."""
    change = FileChange("gone.py", "M", added=1)
    blind = Candidate({}.get, {}.get, [change], b"x", policy(), GREEN, GREEN)
    verdicts = {item.gate: item.verdict for item in run_gates(blind).results}
    assert verdicts["secrets"] == "unknown"


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (".github/CODEOWNERS", "needs_human"),
        (".GitHub/dependabot.yml", "needs_human"),
        ("Dockerfile", "needs_human"),
        ("deploy/api.Dockerfile", "needs_human"),
        ("deploy/Dockerfile.prod", "needs_human"),
        (".troupe.yaml", "needs_human"),
        ("uv.lock", "needs_human"),
        ("web/package-lock.json", "needs_human"),
        (".gitattributes", "needs_human"),
        ("lib/sitecustomize.py", "needs_human"),
        ("CLAUDE.md", "needs_human"),
        ("migrations/001/up.sql", "failed"),
        ("db/schema.sql", "failed"),
        ("secret/key", "failed"),
        ("src/migrations.py", "passed"),
        ("docker.py", "passed"),
        ("web/secret/key", "passed"),
        ("docs/github.md", "passed"),
    ],
)
def test_protected_paths_are_refused_or_shown(path: str, verdict: str) -> None:
    """Would let an agent change what the owner, or every build machine, relies on."""
    rules = policy(protectedPaths=["migrations/**", "*.sql", "/secret"])
    for change in (
        candidate({}, {path: "a\n"}, rules=rules),
        candidate({path: "a\n"}, {}, rules=rules),
        candidate({path: "a\n"}, {"x": "a\n"}, renames={path: "x"}, rules=rules),
        candidate({"x": "a\n"}, {path: "a\n"}, renames={"x": path}, rules=rules),
    ):
        assert protected_paths(change).verdict == verdict


def test_lock_files_follow_the_rule_for_dependencies() -> None:
    """Would ignore what the owner said about dependencies."""
    for said, verdict in (("allow", "passed"), ("human", "needs_human"), ("refuse", "failed")):
        rules = policy(gates={"dependencies": said})
        change = candidate({"poetry.lock": "a"}, {"poetry.lock": "b"}, rules=rules)
        assert protected_paths(change).verdict == verdict


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/test.yml",
        ".gitlab-ci.yml",
        "Jenkinsfile",
        ".circleci/config.yml",
        ".pre-commit-config.yaml",
        ".husky/pre-commit",
    ],
)
def test_ci_files_need_a_person(path: str) -> None:
    """Would run the agent's commands on a build machine with its secrets."""
    assert ci_files(added(path, "a\n")).verdict == "needs_human"
    assert ci_files(candidate({path: "a\n"}, {})).verdict == "needs_human"
    assert ci_files(added(f"docs/about-{path.replace('/', '-')}.md", "a")).verdict == "passed"


# Assembled here so that no scanner takes this file for a leak.
KEYS = {
    "an AWS access key": "AKIA" + "Z7QW3ERT5YUI2OPA",
    "a GitHub token": "ghp_" + "a8Bz" * 9,
    "a GitLab token": "glpat-" + "x7Yq_2mN" * 3,
    "a Slack token": "xoxb-" + "248917-5518-aBcD",
    "a Stripe key": "sk_live_" + "4eC39HqLyjWDarjtT1",
    "a Google API key": "AIza" + "SyD4k9" * 5 + "abcde",
    "an Anthropic key": "sk-ant-" + "api03-Qm9vT3k2" * 2,
    "an OpenAI key": "sk-proj-" + "Qm9vT3k2aB" * 4,
    "an npm token": "npm_" + "aB3d" * 9,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a signed token": "eyJ" + "hbGciOiJIUzI1" + ".eyJ" + "zdWIiOiIxMjM0" + ".dozjgNryP4J3jVm",
}


@pytest.mark.parametrize(("kind", "key"), KEYS.items())
def test_a_known_key_is_refused_and_never_repeated(kind: str, key: str) -> None:
    """Would publish a credential, in the branch or in the finding about it."""
    verdict = secrets(changed("app.py", "a = 1\n", f"a = 1\nKEY = '{key}'\n"))
    assert verdict.verdict == "failed"
    assert (verdict.findings[0].path, verdict.findings[0].line) == ("app.py", 2)
    assert kind in verdict.message
    assert key not in verdict.to_json().decode()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("app.py", 'db_password = "tr0ub4dor-horse"'),
        ("app.js", "const apiKey = 'f81d4fae7dec11d0a765';"),
        ("conf.yml", "  access_token: 8f14e45fceea167a5a36"),
        ("deploy.env", "SECRET_KEY=p9x2Lq8vRt4m"),
        ("app.py", 'URL = "postgres://app:s3cr3tpw9@db.internal/x"'),
        ("app.py", 'X = "dGhpc0lzQVJhbmRvbTMyQnl0ZVN0cmluZzEyMzQ1Njc4OTA"'),
        (".env", "A=1"),
        ("certs/server.pem", "x"),
    ],
)
def test_what_may_be_a_secret_needs_a_person(path: str, line: str) -> None:
    """Would let a password through because it has no known form."""
    assert secrets(added(path, line + "\n")).verdict == "needs_human"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("app.py", 'password = os.environ["DB_PASSWORD"]'),
        ("app.py", 'password = "changeme"'),
        ("app.py", 'api_key = "your-api-key-1234"'),
        ("app.py", 'token = "${TOKEN_1}"'),
        ("app.py", "AWS = 'AKIA" + "IOSFODNN7EXAMPLE'"),
        ("app.py", 'SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"'),
        ("app.py", "def reset_password(token: str, secret: bytes) -> None:"),
        ("app.py", 'URL = "https://example.com/a?token=x"'),
        ("app.py", 'url = "postgres://postgres:postgres@localhost/test"'),
        ("poetry.lock", 'hash = "sha512-dGhpc0lzQVJhbmRvbTMyQnl0ZVN0cmluZzEyMzQ1Njc4OTA"'),
        ("README.md", "Set the token in the settings; a secret is never printed."),
        (".env.example", "API_KEY="),
    ],
)
def test_what_only_speaks_of_secrets_passes(path: str, line: str) -> None:
    """Would cry wolf until nobody listens."""
    assert secrets(added(path, line + "\n")).verdict == "passed"


def test_a_secret_that_was_there_before_blocks_nobody() -> None:
    """Would make every file with an old leak untouchable."""
    line = f"KEY = '{KEYS['a GitHub token']}'\n"
    assert secrets(changed("app.py", line, line + "b = 2\n")).verdict == "passed"
    moved = candidate({"a.py": line}, {"b.py": line}, renames={"a.py": "b.py"})
    assert secrets(moved).verdict == "passed"


def test_a_secret_in_binary_or_in_a_very_long_line_is_seen() -> None:
    """Would be fooled by a NUL byte, or by minified code."""
    key = KEYS["a GitHub token"]
    assert secrets(added("a.bin", b"\0\0" + key.encode())).verdict == "failed"
    long = "x = 1; " * 5_000 + f"'{key}'" + "; y = 2" * 5_000
    assert secrets(added("min.js", long)).verdict == "failed"


@pytest.mark.parametrize("unit", ["a", "token=", "sk-", "eyJ", "a://b:", " ", "'a' = "])
def test_the_time_grows_no_faster_than_the_line(unit: str) -> None:
    """Would hang the agent's host on one crafted line."""

    def cost(length: int) -> float:
        change = added("a.yml", (unit * length)[:length])
        began = time.process_time()
        run_gates(change)
        return time.process_time() - began

    short, long = (min(cost(length) for _ in range(3)) for length in (20_000, 160_000))
    assert long / short < 30, "8 for linear, 64 for quadratic"


def test_text_that_does_not_run_as_it_reads_is_refused() -> None:
    """Would show the reviewer another program than the one that runs."""
    assert hidden_text(added("a.py", "x = 'a\u202e'\n")).verdict == "failed"
    assert hidden_text(added("a.py", "pass\u200bword = 1\n")).verdict == "needs_human"
    assert hidden_text(added("a.py", "\ufeffx = 1\n")).verdict == "passed"
    assert hidden_text(added("a.py", "naïve = 'Ünïcödé 你好 🎉'\n")).verdict == "passed"


@pytest.mark.parametrize(
    ("path", "old", "new", "name"),
    [
        (
            "pyproject.toml",
            '[project]\ndependencies = ["a"]\n',
            '[project]\ndependencies = ["a", "b>=1"]\n',
            "b",
        ),
        (
            "pyproject.toml",
            '[project]\ndependencies = ["a>1"]\n',
            '[project]\ndependencies=["a"]\n',
            "a",
        ),
        ("pyproject.toml", "", '[build-system]\nrequires = ["evil"]\n', "evil"),
        ("pyproject.toml", "", '[dependency-groups]\ndev = ["evil"]\n', "evil"),
        ("pyproject.toml", "", '[project.optional-dependencies]\nx = ["evil[y]"]\n', "evil"),
        ("pyproject.toml", "", '[tool.poetry.group.dev.dependencies]\nevil = "^1"\n', "evil"),
        ("requirements.txt", "a\n", "a\nb @ https://x.example/b.whl\n", "b"),
        ("requirements-dev.txt", "a==1\n", "a==2\n", "a"),
        ("requirements/base.txt", "", "-r other.txt\n", "-r other.txt"),
        ("package.json", "{}", '{"devDependencies": {"left-pad": "1"}}', "left-pad"),
        ("package.json", "{}", '{"scripts": {"postinstall": "x"}}', "script postinstall"),
        ("web/package.json", '{"dependencies":{"a":"1"}}', '{"dependencies":{"a":"2"}}', "a"),
        ("go.mod", "module x\n", "module x\nrequire (\n\tgo.x/y v1 // indirect\n)\n", "go.x/y"),
        ("go.mod", "module x\n", "module x\nreplace a => ../b\n", "replace a"),
        ("Cargo.toml", "", '[dependencies]\nserde = "1"\n', "serde"),
        ("Cargo.toml", "", '[target.x.dependencies]\nserde = {git = "u"}\n', "serde"),
        ("Pipfile", "", '[packages]\nb = "*"\n', "b"),
        ("composer.json", "{}", '{"require": {"a/b": "1"}}', "a/b"),
        ("setup.cfg", "[options]\n", "[options]\ninstall_requires =\n    a\n    b\n", "b"),
        ("setup.cfg", "", "[options.extras_require]\ndev =\n    b\n", "b"),
    ],
)
def test_a_new_or_altered_dependency_is_named(path: str, old: str, new: str, name: str) -> None:
    """Would bring somebody else's code in unseen."""
    verdict = dependencies(changed(path, old, new))
    assert verdict.verdict == "needs_human"
    assert any(finding.why.endswith(name) for finding in verdict.findings), verdict.findings
    for said, verdict_then in (("refuse", "failed"), ("allow", "passed")):
        rules = policy(gates={"dependencies": said})
        ruled = candidate({path: old}, {path: new}, rules=rules)
        assert dependencies(ruled).verdict == verdict_then


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("pyproject.toml", '[project]\nname="a"\n', '[project]\nname="b"\n'),
        (
            "pyproject.toml",
            '[project]\ndependencies = ["a","b"]\n',
            '[project]\ndependencies=["A"]\n',
        ),
        ("requirements.txt", "a\nb\n", "# sorted\nb\na # why\n"),
        ("package.json", '{"dependencies":{"a":"1"}}', '{"dependencies":{}, "scripts":{"x":"y"}}'),
        ("go.mod", "module x\n", "module x\n\ngo 1.22\n"),
        ("setup.cfg", "[options]\ninstall_requires = a\n", "[options]\ninstall_requires =\n  a\n"),
        ("docs/notes.txt", "", "requests\n"),
    ],
)
def test_a_manifest_may_change_otherwise(path: str, old: str, new: str) -> None:
    """Would call every change to a manifest a new dependency."""
    assert dependencies(changed(path, old, new)).verdict == "passed"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pyproject.toml", "[project"),
        ("package.json", "[" * 100_000),
        ("package.json", '{"dependencies": ["a"]}'),
        ("package.json", json.dumps([1])),
        ("setup.py", "setup(install_requires=['a'])"),
    ],
)
def test_a_manifest_that_is_not_understood_needs_a_person(path: str, text: str) -> None:
    """Would take what can't be read for harmless."""
    assert dependencies(added(path, text)).verdict == "needs_human"


@pytest.mark.parametrize(
    ("path", "modes", "text", "verdict"),
    [
        ("a.py", ("000000", "100644"), "x", "passed"),
        ("run.sh", ("000000", "100755"), "x", "needs_human"),
        ("run.sh", ("100644", "100755"), "x", "needs_human"),
        ("run.sh", ("100755", "100644"), "x", "needs_human"),
        ("run.sh", ("100755", "100755"), "x", "passed"),
        ("link", ("000000", "120000"), "docs/a.md", "needs_human"),
        ("docs/link", ("000000", "120000"), "../a.md", "needs_human"),
        ("docs/link", ("000000", "120000"), "../../a.md", "failed"),
        ("link", ("000000", "120000"), "/etc/passwd", "failed"),
        ("link", ("100644", "120000"), "a/../../b", "failed"),
        ("link", ("120000", "100644"), "x", "needs_human"),
        ("lib", ("000000", "160000"), "x", "needs_human"),
        ("a.bin", ("000000", "100644"), b"\0\1", "needs_human"),
        ("a\u202eb.py", ("000000", "100644"), "x", "failed"),
        ("a\nb.py", ("000000", "100644"), "x", "failed"),
        ("a\udcffb.py", ("000000", "100644"), "x", "failed"),
        ("../a.py", ("000000", "100644"), "x", "failed"),
        ("/etc/a", ("000000", "100644"), "x", "failed"),
        ("a/.git/config", ("000000", "100644"), "x", "failed"),
        (".GIT/config", ("000000", "100644"), "x", "failed"),
        (".g\u200cit/config", ("000000", "100644"), "x", "failed"),
        ("git~1/config", ("000000", "100644"), "x", "failed"),
        ("a\\b", ("000000", "100644"), "x", "failed"),
        ("aux.py", ("000000", "100644"), "x", "needs_human"),
        ("docs/über uns.md", ("000000", "100644"), "x", "passed"),
        ("x" * 1_100, ("000000", "100644"), "x", "failed"),
    ],
)
def test_only_plain_files_with_plain_names_pass(
    path: str, modes: tuple[str, str], text: str | bytes, verdict: str
) -> None:
    """Would let a link, a submodule or a name reach outside what the diff shows."""
    base = {path: "y"} if modes[0] != "000000" else {}
    change = candidate(base, {path: text}, modes={path: modes})
    result = plain_files(change)
    assert result.verdict == verdict, result
    assert result.to_json()


def test_names_that_collide_on_other_file_systems_are_refused() -> None:
    """Would overwrite one file with the other at the next checkout elsewhere."""
    base = {"README.md": "a", "docs/caf\u00e9.md": "a"}
    for name in ("readme.md", "docs/cafe\u0301.md"):
        assert plain_files(candidate(base, {**base, name: "b"})).verdict == "failed"
    assert plain_files(candidate(base, {**base, "README.md": "b"})).verdict == "passed"


def test_a_change_must_be_one_a_person_can_read() -> None:
    """Would hand a reviewer a thousand files."""
    rules = policy(gates={"maxFiles": 2, "maxLines": 10, "maxDeletedFiles": 1, "maxFileBytes": 50})
    small = {"a": "1\n", "b": "2\n"}
    assert size(candidate({}, small, rules=rules)).verdict == "passed"
    assert size(candidate({}, {**small, "c": "3"}, rules=rules)).verdict == "needs_human"
    lines = "".join(f"{n}\n" for n in range(11))
    assert size(candidate({}, {"a": lines}, rules=rules)).verdict == "needs_human"
    assert size(candidate(small, {}, rules=rules)).verdict == "needs_human"
    assert size(candidate({}, {"a": "x" * 51}, rules=rules)).verdict == "failed"


def test_findings_are_bounded_and_the_message_counts_the_rest() -> None:
    """Would store megabytes of findings for one hostile change."""
    flood = candidate({}, {f".github/{n}": "x" for n in range(FINDINGS_MAX + 50)})
    verdict = protected_paths(flood)
    assert len(verdict.findings) == FINDINGS_MAX
    assert f"and {FINDINGS_MAX + 49} more" in verdict.message


def test_an_empty_patch_is_refused() -> None:
    """Would ask a person to approve nothing."""
    assert not_empty(candidate(FIX, FIX)).verdict == "failed"
    assert not_empty(candidate(BROKEN, FIX, patch=b"")).verdict == "unknown"
    assert not_empty(candidate(FIX, FIX, patch=b"diff")).verdict == "unknown"
