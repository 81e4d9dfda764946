"""Chaos: a real deployment whose processes are killed and paused while its work is judged.

plan       the shape of a run
target     what is deployed: the simulation's workload, and the API
watch      before every store: each commit is noted, and leaves its mark in the feed
notes      what the watch writes, a file a process
outside    the world that jobs call, in a process nobody kills
load       clients over HTTP; those of the simulation work at the store
scheduled  its schedules, and what was due
part       what another layer adds to the load, and to what is judged
live       what they and the outside saw
node       the second node
strikes    which processes there are, and how they are struck
reading    what is stored
merge      all of it -> one history, in the store's own order: pure
report     the verdict, by the rules of `runtime.verify.invariants`
run        one run from `up` to the verdict
"""
