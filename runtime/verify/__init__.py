"""Verification that ships with Troupe: its own code under faults, judged from a history.

    loop        virtual time: an event loop whose clock jumps to the next timer
    process     simulated processes: killed, frozen, with clocks that step
    network     the way to the store: slow, lossy, cut
    history     what was seen, as plain facts, by a tap in the store and the test's clients
    invariants  pure functions: history -> violations
    workload    agents and jobs that check themselves; driver, caller, outside: who uses them
    world       the deployment, and who starts what has ended; nemesis: the trouble
    reader      what is stored at the end
    simulate    one seed, many seeds, and the figure they make
    planted     bugs put into the runtime to see them found; bugs: which
    crashpoints kills at every durable boundary of one job
    powerloss   power cuts of the SQLite file; recorder.c, replay, commits: how
    schedules   the books of a month of schedules; month: how it is lived, dues: when each was due
    conformance random work on every store and on a model of the contract
    authorization  every operation of the API with every kind of caller
    cron        due times beside a scan of every minute; croncases, cronscan: how
    chaos       a real deployment whose processes are killed while it works

Host, scheduler, client and store are the objects of production, unchanged;
`python -m runtime.verify NAME` runs one of them.
"""
