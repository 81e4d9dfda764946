"""Every error of Troupe crosses Ray, which pickles it as `cls(*args)`."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil

import actors
import runtime
from runtime.errors import TroupeError


def every_error() -> list[type[TroupeError]]:
    for package in (runtime, actors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "cluster" not in module.name and "__main__" not in module.name:
                importlib.import_module(module.name)
    found: list[type[TroupeError]] = []
    queue = [TroupeError]
    while queue:
        queue += (children := queue.pop().__subclasses__())
        found += children
    return found


def arguments(kind: type[TroupeError]) -> list[object]:
    """Arguments of the types the class takes; any three where it takes any."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # BaseException's own
        return ["one", 2, "three"]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["one", 2, "three"]
    samples = {"float": 1.5, "int": 2, "float | None": 1.5, "int | None": 2}
    return [samples.get(str(p.annotation), "text") for p in parameters]


def test_every_error_survives_pickling_and_says_a_sentence() -> None:
    """An error would reach the caller as a serialization failure instead of itself."""
    for kind in every_error():
        error = kind(*arguments(kind))
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert copy.args == error.args
        assert str(copy) == str(error)
        assert str(copy)


def test_errors_end_in_error() -> None:
    """A failure could not be told from a value by its name."""
    assert [kind.__name__ for kind in every_error() if not kind.__name__.endswith("Error")] == []
