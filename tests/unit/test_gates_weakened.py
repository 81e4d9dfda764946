"""A change can't make itself right by bending the tests that judge it."""

from __future__ import annotations

import pytest

from actors.gates import SuiteVerdict
from actors.gates.suite import tests_pass
from actors.gates.weakened import tests_not_weakened
from actors.records import GateResult
from tests.candidates import GREEN, RED, candidate, policy

# Names of the code under test that pytest would collect as tests.
tests_pass.__test__ = False  # type: ignore[attr-defined]
tests_not_weakened.__test__ = False  # type: ignore[attr-defined]

TEST = """\
import pytest
from calc import add, halve

def test_adds():
    assert add(1, 2) == 3
    assert add(0, 0) == 0

@pytest.mark.parametrize("n", [1, 2, 3])
def test_halves(n):
    with pytest.raises(ValueError):
        halve(n)
    assert n

class TestMore:
    def test_zero(self):
        self.assertEqual(add(0, 0), 0)
"""
FIRST = "    assert add(1, 2) == 3\n"
SECOND = "    assert add(0, 0) == 0\n"


def judge(old: str | None, new: str | None, path: str = "tests/test_calc.py") -> GateResult:
    base = {"calc.py": "x = 1\n"} | ({path: old} if old is not None else {})
    final = {"calc.py": "x = 2\n"} | ({path: new} if new is not None else {})
    return tests_not_weakened(candidate(base, final))


def edited(*pairs: tuple[str, str]) -> str:
    text = TEST
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    return text


def inside(header: str, footer: str = "") -> str:
    """The test with its first assertion under a header."""
    return edited((FIRST, f"    {header}\n    {FIRST}{footer}"))


@pytest.mark.parametrize(
    "new",
    [
        TEST,
        edited(("from calc import add, halve", "from calc import add, halve  # the API")),
        edited((SECOND, SECOND + "    assert add(5, 5)\n")),
        TEST + "\ndef test_new():\n    assert add(2, 2) == 4\n",
        edited(("[1, 2, 3]", "[1, 2, 3, 4]")),
        edited((SECOND, "    # the neutral element\n    assert add(0,0)==0\n")),
    ],
)
def test_more_or_equal_tests_pass(new: str) -> None:
    """Would send honest work back to its author."""
    assert judge(TEST, new).verdict == "passed"


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (None, "test_adds is gone"),
        ("", "test_adds is gone"),
        (edited(("def test_adds", "def adds")), "test_adds is gone"),
        (edited(("class TestMore", "class More")), "TestMore.test_zero is gone"),
        (edited((SECOND, "")), "test_adds asserts less: `add(0, 0) == 0`"),
        (edited(("add(0, 0) == 0\n", "True\n")), "asserts less"),
        (edited(("add(0, 0) == 0\n", "add(0, 0) == 0 or True\n")), "asserts less"),
        (edited(("add(0, 0) == 0\n", "add(0, 0) == add(0, 0)\n")), "asserts less"),
        (edited(("add(0, 0) == 0\n", "(add(0, 0) == 0, 'zero')\n")), "asserts less"),
        (edited(("add(0, 0) == 0\n", "not False\n")), "asserts less"),
        (edited((FIRST, "    return\n" + FIRST)), "asserts less"),
        (inside("if False:"), "asserts less"),
        (inside("for x in []:"), "asserts less"),
        (inside("with contextlib.suppress(AssertionError):"), "asserts less"),
        (inside("try:", "    except Exception:\n        pass\n"), "asserts less"),
        (edited(("    with pytest.raises(ValueError):\n", "    if n:\n")), "asserts less"),
        (
            edited(("self.assertEqual(add(0, 0), 0)", "add(0, 0)")),
            "TestMore.test_zero asserts less",
        ),
        (edited(("self.assertEqual(add(0, 0), 0)", "self.assertTrue(True)")), "asserts less"),
        (edited(("def test_adds", "@pytest.mark.skip\ndef test_adds")), "switched off: skip"),
        (edited(("def test_adds", "@pytest.mark.xfail(strict=False)\ndef test_adds")), "xfail"),
        (
            edited(("def test_adds", "@pytest.mark.skipif(True, reason='x')\ndef test_adds")),
            "skipif",
        ),
        (edited(("    assert add(1", "    pytest.skip('flaky')\n    assert add(1")), "skip"),
        (edited(("import pytest\n", "import pytest\npytestmark = pytest.mark.skip\n")), "skip"),
        (edited(("import pytest\n", "import pytest\n__test__ = False\n")), "__test__"),
        (edited(("import pytest\n", "import pytest\nimport pytest as p\np.skip('no')\n")), "skip"),
        (
            edited(("class TestMore:", "import unittest\n@unittest.skip('x')\nclass TestMore:")),
            "skip",
        ),
        (edited(("[1, 2, 3]", "[1]")), "test_halves has 1 cases instead of 3"),
    ],
)
def test_a_weakened_test_is_refused_and_named(new: str | None, why: str) -> None:
    """Would approve a change that only passes because nothing checks it any more."""
    verdict = judge(TEST, new)
    assert verdict.verdict == "failed"
    assert any(why in finding.why for finding in verdict.findings), verdict.findings
    assert all(finding.path == "tests/test_calc.py" for finding in verdict.findings)


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (edited(("add(0, 0) == 0\n", "add(0, 0) == 1\n")), "asserts something else"),
        (edited(("def test_adds", "def test_sums"), ("== 3", "== 4")), "gone, other tests came"),
        ("def test_adds(:\n", "can't be parsed"),
    ],
)
def test_a_test_that_says_something_else_is_a_persons_question(new: str, why: str) -> None:
    """Would let an expectation be fitted to the wrong answer without anybody noticing."""
    verdict = judge(TEST, new)
    assert verdict.verdict == "needs_human"
    assert why in verdict.message


def test_a_class_that_is_no_longer_collected_is_noticed() -> None:
    """Would miss tests that stay where they are and are never run again."""
    old = "class Adding(TestCase):\n    def test_zero(self):\n        self.assertEqual(f(), 0)\n"
    verdict = judge(old, old.replace("(TestCase)", ""))
    assert (verdict.verdict, verdict.findings[0].why) == ("failed", "Adding.test_zero is gone")


def test_a_skip_that_was_there_before_is_nobodys_fault() -> None:
    """Would refuse every change to a repository with platform tests."""
    old = edited(("def test_adds", "@pytest.mark.skipif(WINDOWS, reason='a')\ndef test_adds"))
    assert judge(old, old.replace("reason='a'", "reason='b'") + "\n# more\n").verdict == "passed"
    assert judge(old, old.replace("WINDOWS", "True")).verdict == "failed"


def test_a_caught_assertion_that_raises_again_still_counts() -> None:
    """Would refuse a test that adds context to its failure."""
    text = (
        "def test_a():\n    try:\n        assert f()\n    except AssertionError:\n        raise\n"
    )
    assert judge("def test_a():\n    assert f()\n", text).verdict == "passed"


def test_a_moved_test_is_not_lost() -> None:
    """Would forbid tidying up."""
    name, rest = "tests/test_more.py", TEST.partition("class TestMore:")
    base = {"tests/test_calc.py": TEST}
    final = {"tests/test_calc.py": rest[0], name: "class TestMore:" + rest[2]}
    assert tests_not_weakened(candidate(base, final)).verdict == "passed"
    weaker = {**final, name: final[name].replace("self.assertEqual(add(0, 0), 0)", "pass")}
    assert tests_not_weakened(candidate(base, weaker)).verdict == "failed"


@pytest.mark.parametrize(
    "target", ["tests/calc_old.py", "attic/calc.txt", "tests/test_calc.py.off"]
)
def test_a_test_renamed_out_of_collection_is_refused(target: str) -> None:
    """Would switch a test off with the diff showing nothing but a rename."""
    moved = candidate(
        {"tests/test_calc.py": TEST}, {target: TEST}, renames={"tests/test_calc.py": target}
    )
    verdict = tests_not_weakened(moved)
    assert verdict.verdict == "failed"
    assert "no longer run" in verdict.message
    kept = candidate(
        {"tests/test_calc.py": TEST},
        {"tests/unit/test_calc.py": TEST},
        renames={"tests/test_calc.py": "tests/unit/test_calc.py"},
    )
    assert tests_not_weakened(kept).verdict == "passed"


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (
            "a.test.ts",
            "it('a', () => { expect(1) })\n",
            "it.skip('a', () => { expect(1) })\n",
            "failed",
        ),
        ("a.test.ts", "it('a', () => { expect(f()) })\n", "it('a', () => { f() })\n", "failed"),
        ("a.spec.js", "test('a', f)\ntest('b', f)\n", "test('a', f)\n", "failed"),
        ("a.spec.js", "test('a', f)\n", "test('a', f)\ntest('b', f)\n", "passed"),
        ("a.spec.js", "test('a', f)\n", "// test('a', f)\n", "failed"),
        (
            "a.spec.js",
            "test('a', () => expect(1))\n",
            "test('a', () => expect(2))\n",
            "needs_human",
        ),
        (
            "a_test.go",
            "func TestA(t *testing.T) {\n",
            "func TestA(t *testing.T) {\nt.Skip()\n",
            "failed",
        ),
        ("a_test.go", "func TestA(t *testing.T) {\n", None, "failed"),
        ("tests/a.rs", "#[test]\nfn a() {}\n", "#[test]\n#[ignore]\nfn a() {}\n", "failed"),
        ("src/test/ATest.java", "@Test\nvoid a() {}\n", "@Disabled @Test\nvoid a() {}\n", "failed"),
        ("spec/a_spec.rb", "it 'a' do\n", "xit 'a' do\n", "failed"),
        ("tests/data/expected.json", "[1]", "[2]", "needs_human"),
        ("tests/data/expected.json", None, "[2]", "passed"),
        ("a_test.go", None, "func TestA(t *testing.T) { t.Skip() }\n", "needs_human"),
    ],
)
def test_tests_in_other_languages_count_too(
    path: str, old: str | None, new: str | None, expected: str
) -> None:
    """Would leave every repository that is not Python without this gate."""
    assert judge(old, new, path).verdict == expected


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("conftest.py", None, "import pytest\n"),
        ("tests/conftest.py", "a = 1\n", "a = 2\n"),
        ("pytest.ini", "[pytest]\n", "[pytest]\naddopts = -p evil\n"),
        ("tox.ini", None, "[pytest]\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\n", "[tool.pytest.ini_options]\nx=1\n"),
        ("pyproject.toml", "[project]\n", "[tool.pytest.ini_options]\naddopts='--co'\n"),
        ("pyproject.toml", "[project]\n", "[project\n"),
        ("setup.cfg", "[tool:pytest]\n", "[tool:pytest]\naddopts=-k x\n"),
        ("package.json", '{"scripts":{"test":"jest"}}', '{"scripts":{"test":"true"}}'),
        ("jest.config.js", None, "module.exports = {}"),
        ("random.py", None, "def randint(a, b): return a\n"),
        ("calc_new.py", None, "if 'pytest' in sys.modules: x = 3\n"),
        ("calc_new.py", None, "import os\nif os.environ.get('PYTEST_CURRENT_TEST'): x = 3\n"),
    ],
)
def test_how_tests_are_run_is_a_persons_question(path: str, old: str | None, new: str) -> None:
    """Would let a change pick the tests it is judged by."""
    assert judge(old, new, path).verdict == "needs_human"


@pytest.mark.parametrize("path", ["pytest.py", "_pytest/__init__.py", "src/pluggy.py"])
def test_a_module_in_place_of_the_runner_is_refused(path: str) -> None:
    """Would let `python -m pytest` run the agent's own pytest."""
    verdict = judge(None, "raise SystemExit(0)\n", path)
    assert verdict.verdict == "failed"
    assert "imported instead of" in verdict.message


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("pyproject.toml", "[project]\nname='a'\n", "[project]\nname='b'\n"),
        ("package.json", '{"scripts":{"test":"jest"}}', '{"scripts":{"test":"jest","x":"y"}}'),
        ("src/calc/random_walk.py", None, "x = 1\n"),
        ("docs/pytest/guide.md", None, "how to test\n"),
    ],
)
def test_other_parts_of_such_files_are_free(path: str, old: str | None, new: str) -> None:
    """Would bother a person with every change to a manifest."""
    assert judge(old, new, path).verdict == "passed"


def test_the_script_of_the_test_command_is_guarded() -> None:
    """Would let the agent rewrite `./check.sh` into `exit 0`."""
    rules = policy(commands={"test": "bash ./check.sh && make all"})
    for path in ("check.sh", "Makefile"):
        change = candidate({path: "a\n"}, {path: "exit 0\n"}, rules=rules)
        assert tests_not_weakened(change).verdict == "needs_human"


def test_fewer_tests_than_before_are_noticed() -> None:
    """Would miss tests that vanish in ways no parser sees."""
    fewer = SuiteVerdict(exit_code=0, passed=2, failed=0)
    change = candidate({"a.py": "1\n"}, {"a.py": "2\n"}, before=GREEN, after=fewer)
    verdict = tests_not_weakened(change)
    assert (verdict.verdict, verdict.message) == ("needs_human", "2 tests ran instead of 3")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (RED, GREEN, "passed"),
        (GREEN, GREEN, "passed"),
        (None, GREEN, "passed"),
        (None, SuiteVerdict(0), "passed"),
        (GREEN, RED, "failed"),
        (RED, RED, "failed"),
        (None, RED, "failed"),
        (SuiteVerdict(1), SuiteVerdict(1), "failed"),
        (SuiteVerdict(1, 5, 4), SuiteVerdict(1, 7, 2), "needs_human"),
        (SuiteVerdict(1, 5, 4), SuiteVerdict(1, 0, 1), "failed"),
        (SuiteVerdict(1, 5, 4), SuiteVerdict(2, 9, 0), "failed"),
        (GREEN, None, "unknown"),
        (GREEN, SuiteVerdict(None, 3, 0), "unknown"),
        (GREEN, SuiteVerdict(0, 0, 0), "needs_human"),
    ],
)
def test_the_exit_code_on_the_final_tree_decides(
    before: SuiteVerdict | None, after: SuiteVerdict | None, expected: str
) -> None:
    """Would take red, or unfinished, for green."""
    change = candidate({"a.py": "1\n"}, {"a.py": "2\n"}, before=before, after=after)
    assert tests_pass(change).verdict == expected


def test_a_repository_without_tests_needs_a_person() -> None:
    """Would call untested work tested."""
    change = candidate({}, {"a": "1"}, rules=policy(commands={}))
    assert tests_pass(change).verdict == "needs_human"
