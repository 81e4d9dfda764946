"""The queue's side of jobs and a host's: where each job is, what it leads to, how one runs.

    scheduler's side   table, records, decisions, desk, holds, orphans, rounds
    host's side        lane, run, writer
    both               events

What a job is stands in `runtime.job`; who reads, commits and dispatches is `runtime.scheduler`.
"""
