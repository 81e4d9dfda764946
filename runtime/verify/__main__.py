"""`troupe verify NAME`: run one of the verifications and print its figure.

Prints one line of JSON and one sentence; exit code 1 when something was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial

from runtime.verify.bugs import BUGS
from runtime.verify.conformance import STORES, conformance
from runtime.verify.crashpoints import crashpoints
from runtime.verify.cron import verify as verify_cron
from runtime.verify.month import Size
from runtime.verify.planted import find_all
from runtime.verify.powerloss import powerloss
from runtime.verify.report import Outcome, TooLittleError
from runtime.verify.schedules import verify as verify_schedules
from runtime.verify.simulate import CALM, TROUBLE, run_seed, run_seed_on_sqlite, simulate


def _simulate(options: argparse.Namespace) -> Outcome:
    plan = CALM if options.calm else TROUBLE
    run_one = run_seed_on_sqlite if options.store == "sqlite" else run_seed
    report = simulate(options.first, options.seeds, plan, run_one)
    details = [line for one in report.failed for line in one.explain()]
    return Outcome(report.figure(), report.sentence(), report.good, details)


def _planted(options: argparse.Namespace) -> Outcome:
    return find_all(options.seeds, options.first, alone=options.alone, names=options.bugs)


def _bug(name: str) -> str:
    names = [bug.name for bug in BUGS]
    if name not in names:
        raise argparse.ArgumentTypeError(f"no bug is called {name!r}; there are: {names}")
    return name


def _crashpoints(_: argparse.Namespace) -> Outcome:
    return crashpoints()


def _powerloss(options: argparse.Namespace) -> Outcome:
    return powerloss(options.points, options.seed)


def _cron(options: argparse.Namespace) -> Outcome:
    return verify_cron(options.cases, options.seed)


def _schedules(options: argparse.Namespace) -> Outcome:
    size = Size(options.schedules, options.days, options.outages)
    return verify_schedules(options.seed, size, not options.once)


def _conformance(options: argparse.Namespace) -> Outcome:
    return conformance(options.stores, options.runs, options.steps)


Verification = tuple[str, Callable[[], Outcome]]
"""What it is about, and how it is run; for those that a caller adds."""


def parser(program: str, more: Mapping[str, Verification] | None = None) -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog=program, description=__doc__)
    names = top.add_subparsers(required=True, metavar="NAME")

    def verification(
        name: str, run: Callable[[argparse.Namespace], Outcome], about: str
    ) -> argparse.ArgumentParser:
        one = names.add_parser(
            name, help=about, description=about,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        one.set_defaults(run=run)
        one.add_argument("--json", action="store_true", help="print the figure only")
        return one

    one = verification("simulate", _simulate, "the runtime under seeded trouble, on virtual time")
    one.add_argument("--seeds", type=int, default=200, help="how many")
    one.add_argument("--first", type=int, default=1, help="the first of them")
    one.add_argument("--store", choices=("memory", "sqlite"), default="memory", help="under it")
    one.add_argument("--calm", action="store_true", help="the same work without any trouble")
    one = verification("planted", _planted, "bugs put into the runtime; each must be found")
    one.add_argument("--seeds", type=int, default=200, help="at most so many for each bug")
    one.add_argument("--first", type=int, default=1, help="the first seed")
    one.add_argument("--alone", action="store_true", help="also try the halves of pairs alone")
    one.add_argument("bugs", nargs="*", type=_bug, help="names; without one, all")
    verification("crashpoints", _crashpoints, "kills at every durable boundary of one job")
    one = verification("powerloss", _powerloss, "power cuts of the SQLite file")
    one.add_argument("--points", type=int, default=1000, help="of power cuts, each durability")
    one.add_argument("--seed", type=int, default=1, help="draws them")
    one = verification("cron", _cron, "due times of cron beside a scan of every minute")
    one.add_argument("--cases", type=int, default=5000, help="beside the published vectors")
    one.add_argument("--seed", type=int, default=1, help="draws them")
    one = verification("schedules", _schedules, "a month of schedules, and its books")
    one.add_argument("--seed", type=int, default=1, help="draws everything")
    one.add_argument("--schedules", type=int, default=200, help="how many")
    one.add_argument("--days", type=int, default=30, help="of virtual time")
    one.add_argument("--outages", type=int, default=40, help="of the scheduler")
    one.add_argument("--once", action="store_true", help="do not live it again to compare")
    one = verification("conformance", _conformance, "random work on every store and on a model")
    one.add_argument("--runs", type=int, default=200, help="of each store")
    one.add_argument("--steps", type=int, default=50, help="of each run")
    one.add_argument("--stores", nargs="+", choices=STORES, default=STORES, help="which")
    for added, (about, run) in (more or {}).items():
        verification(added, partial(_added, run), about)
    return top


def _added(run: Callable[[], Outcome], _: argparse.Namespace) -> Outcome:
    return run()


def main(
    arguments: list[str] | None = None,
    program: str = "python -m runtime.verify",
    more: Mapping[str, Verification] | None = None,
) -> int:
    """Run what the command line names; the exit code.

    Args:
        more: verifications of a package that is built on this one, by name.
    """
    options = parser(program, more).parse_args(arguments)
    try:
        outcome: Outcome = options.run(options)
    except TooLittleError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(outcome.figure) + "\n")
    if not options.json:
        sys.stdout.write(outcome.sentence + "\n")
    for line in outcome.details:
        sys.stderr.write(line + "\n")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
