"""Schedules as they live in the scheduler's process: fired, changed and accounted for.

    planner   fires what is due and catches up what was missed; pace says how fast
    book      what the documents say, in memory, and how both change
    table     all schedules by the time they wake; clock says whether to believe the time
    desk      what each message about a schedule leads to
    ends      what the end of its runs leads to
    writer    what fates of due times come to in the store

When a schedule is due is `runtime.schedule`'s: pure functions that know no clock.
"""
