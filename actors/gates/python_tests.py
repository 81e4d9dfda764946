"""What a Python test module really checks, read from its syntax tree.

An assertion counts only where it can fail the test: not after a return, not in
a branch that is never taken, not where the failure is caught, and not when it
is true by itself.  So a test that was hollowed out counts less than before,
however it was done.  Nothing is imported or run.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

PARSE_BYTES_MAX: Final = 512 << 10

_SWALLOWS: Final = frozenset({"AssertionError", "Exception", "BaseException"})
_CHECKS: Final = re.compile(
    r"(?:.*\.)?(?:assert\w*|fail|raises|warns|deprecated_call|approx_equal)$|"
    r".*\.(?:should|expect)\w*$"
)
_DISABLES: Final = frozenset(
    {
        "skip",
        "skipif",
        "xfail",
        "skipIf",
        "skipUnless",
        "skipTest",
        "expectedFailure",
        "importorskip",
        "SkipTest",
        "collect_ignore",
        "collect_ignore_glob",
        "__test__",
    }
)
_FRAMEWORKS: Final = frozenset({"pytest", "unittest", "mark", "nose", "case", "self", "cls"})


@dataclass
class Unit:
    """One function or method of a test module."""

    line: int
    is_test: bool
    checks: Counter[str] = field(default_factory=Counter)
    """Each effective assertion, as normal source text."""
    cases: int = 0
    """Literal cases of its parametrizations."""


@dataclass
class Module:
    units: dict[str, Unit] = field(default_factory=dict)
    """By qualified name, `TestAdd.test_zero`."""
    disabled: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Each thing that keeps tests from running: how often, and the last line."""


def read_module(text: str) -> Module | None:
    """The tests of a module; None when it is no Python that can be parsed."""
    if len(text) > PARSE_BYTES_MAX:
        return None
    try:
        tree = ast.parse(text)
        module = Module()
        _collect(tree.body, "", module)
        _find_disabled(tree, module)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return module


def _collect(body: Sequence[ast.stmt], prefix: str, module: Module, collected: bool = True) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef):
            run = collected and (node.name.startswith("Test") or bool(node.bases))
            _collect(node.body, f"{prefix}{node.name}.", module, run)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_test = collected and node.name.startswith("test")
            unit = Unit(node.lineno, is_test, Counter(_checks(node.body)), _cases(node))
            module.units[f"{prefix}{node.name}"] = unit
        elif isinstance(node, ast.If | ast.Try):
            _collect(node.body, prefix, module, collected)
            _collect(node.orelse, prefix, module, collected)


def _cases(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = 0
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize"):
            lists = [arg for arg in mark.args[1:2] if isinstance(arg, ast.List | ast.Tuple)]
            total += sum(len(item.elts) for item in lists)
    return total


def _checks(body: Sequence[ast.stmt]) -> Iterator[str]:
    """The effective assertions of a block, in order."""
    for node in body:
        if isinstance(node, ast.Assert):
            if not _is_true_by_itself(node.test):
                yield ast.unparse(node.test)
        elif isinstance(node, ast.Try):
            yield from _checks_of_try(node)
        elif isinstance(node, ast.With | ast.AsyncWith):
            yield from _checks_of_with(node)
        elif isinstance(node, ast.If):
            truth = _constant(node.test)
            yield from () if truth is False else _checks(node.body)
            yield from () if truth is True else _checks(node.orelse)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            runs = node.test if isinstance(node, ast.While) else node.iter
            yield from () if _constant(runs) is False else _checks(node.body)
            yield from _checks(node.orelse)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _checks(node.body)
        elif isinstance(node, ast.Match):
            for case in node.cases:
                yield from _checks(case.body)
        else:
            yield from _calls(node)
        if isinstance(node, ast.Return | ast.Raise | ast.Continue | ast.Break):
            return


def _checks_of_try(node: ast.Try) -> Iterator[str]:
    if not any(_swallows(handler) for handler in node.handlers):
        yield from _checks(node.body)
    for handler in node.handlers:
        yield from _checks(handler.body)
    yield from _checks(node.orelse)
    yield from _checks(node.finalbody)


def _checks_of_with(node: ast.With | ast.AsyncWith) -> Iterator[str]:
    guarded = False
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call):
            guarded |= ast.unparse(call.func).endswith("suppress") and any(
                _last(argument) in _SWALLOWS for argument in call.args
            )
            if _CHECKS.fullmatch(ast.unparse(call.func)):
                yield ast.unparse(call)
    if not guarded:
        yield from _checks(node.body)


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether the handler catches a failed assertion and lets the test go on."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    if not any(kind is None or _last(kind) in _SWALLOWS for kind in kinds):
        return False
    return not any(
        isinstance(inner, ast.Raise) or any(_calls(inner))
        for statement in handler.body
        for inner in ast.walk(statement)
        if isinstance(inner, ast.stmt)
    )


def _calls(node: ast.stmt) -> Iterator[str]:
    """Calls that can fail a test: `self.assertEqual(...)`, `pytest.fail(...)`."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and _CHECKS.fullmatch(name := ast.unparse(inner.func)):
            fixed = inner.args and isinstance(inner.args[0], ast.Constant)
            if not (fixed and name.endswith(("assertTrue", "assert_"))):
                yield ast.unparse(inner)


def _is_true_by_itself(test: ast.expr) -> bool:
    if _constant(test) is True:
        return True
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any(_is_true_by_itself(value) for value in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        same = ast.unparse(test.left) == ast.unparse(test.comparators[0])
        return same and isinstance(test.ops[0], ast.Eq | ast.Is | ast.LtE | ast.GtE)
    return False


def _constant(test: ast.expr) -> bool | None:
    """The truth of an expression that is fixed in the source, else None."""
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.Tuple | ast.List | ast.Set):
        return bool(test.elts)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        truth = _constant(test.operand)
        return None if truth is None else not truth
    return None


def _find_disabled(tree: ast.Module, module: Module) -> None:
    foreign = _other_names(tree)
    for node in ast.walk(tree):
        name = _disabling(node, foreign)
        if name:
            count, _ = module.disabled.get(name, (0, 0))
            module.disabled[name] = (count + 1, getattr(node, "lineno", 0))


def _disabling(node: ast.AST, frameworks: frozenset[str]) -> str | None:
    """What the node switches off, as source text; of a call with its conditions."""
    if isinstance(node, ast.Call):
        name = _disabling(node.func, frameworks)
        conditions = [item.value for item in node.keywords if item.arg == "condition"]
        values = [ast.unparse(item) for item in (*node.args, *conditions)]
        return f"{name}({', '.join(values)})" if name and name.startswith("skip") else None
    if isinstance(node, ast.Attribute) and node.attr in _DISABLES:
        owner = _last(node.value)
        return node.attr if owner in frameworks or node.attr != "skip" else None
    if isinstance(node, ast.Name) and node.id in _DISABLES:
        return node.id
    if isinstance(node, ast.alias) and node.name in _DISABLES and node.asname:
        return node.name
    return None


def _other_names(tree: ast.Module) -> frozenset[str]:
    """The test frameworks' names here, with what they are imported as."""
    imported = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname and alias.name.partition(".")[0] in _FRAMEWORKS
    }
    return _FRAMEWORKS | imported


def _last(node: ast.expr | None) -> str:
    """`c` of `a.b.c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
