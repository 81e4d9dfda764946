"""When a schedule is due and which job is next: pure functions.

`plan.parse` is the door to due times; what it gives answers `next_after` and `due_between`
in UTC milliseconds and knows neither a clock nor a store.  Who keeps plans,
fires them and accounts for each due time is the scheduler's business.

    plan      one text -> one Plan: which of the forms it is, start and end
    cron      5 fields across gaps and folds; cronfields reads them
    interval  "every 30 minutes", ISO-8601 durations and repetitions
    instants  ISO-8601 instants, local or with an offset
    zones     IANA zones as tables of offsets
    jitter    a stable delay by (schedule, due time)
    queue     which job is next: priority with ageing, under limits
"""
