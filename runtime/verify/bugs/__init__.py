"""Bugs to be found: each a patch that is taken back when its context ends.

    store     what a store could get wrong: fences, dedupe, order, reminders, feed
    hosts     what a host could: commits, claims, retries, snapshots
    jobs      what queue and runs could: limits, pauses, steps, ends, signals

A pair is two bugs of which each alone is masked by another layer of defence.
"""

from __future__ import annotations

from runtime.verify.bugs import hosts, jobs, store
from runtime.verify.bugs.bug import Bug

BUGS: tuple[Bug, ...] = (*store.BUGS, *hosts.BUGS, *jobs.BUGS)
