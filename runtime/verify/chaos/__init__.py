"""Chaos: a real deployment whose processes are killed and paused while its work is judged.

    target     what is deployed: agents that keep accounts and do jobs, and the API
    outside    the world that jobs call, in a process nobody kills
    load       clients over HTTP, and what they were promised
    strikes    which processes there are, and how they are struck
    aftermath  pure functions: what was promised and what is stored -> violations
    run        one run from `up` to the verdict

Nothing here is told by the code under test: promises are answers of the API,
calls are counted outside, and what is stored is read when everything is down.
"""
