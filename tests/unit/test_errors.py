"""Every error of Troupe crosses Ray, which pickles it as `cls(*args)`."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import logging
import pickle
import pkgutil

from pydantic import BaseModel, ValidationError

import actors
import runtime
from runtime.errors import TroupeError, told
from runtime.logs import JsonFormatter


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


class Content(BaseModel):
    amount: int


def test_what_somebody_wrote_is_in_no_error_and_in_no_log_line() -> None:
    """A validation error quotes what it was given: a message's content would be in every log."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.errors")
    logger.addHandler(handler)
    secret = "".join(("s3cr3t", "!"))  # a frame shows the line that is in it
    try:
        Content.model_validate({"amount": secret})
    except ValidationError as error:
        assert told(error).startswith("ValidationError: amount: Input should be")
        try:
            raise LookupError("no such order") from error
        except LookupError:
            logger.exception("it failed")
    logger.removeHandler(handler)
    said = json.loads(out.getvalue())["error"]
    assert secret not in said
    assert said.index("amount: Input should be") < said.index("LookupError: no such order")
    assert said.count("test_errors.py") == 2
