"""The queue's side of jobs and a host's: where each job is, what it leads to, how one runs.

    scheduler's side   seat, dispatcher, rounds, records, table, desk, decisions, control,
                       holds, orphans
    host's side        lane, run, work, writer
    both               events

What a job is stands in `runtime.job`; what the scheduler's parts make together, in
`runtime.scheduler`.
"""
