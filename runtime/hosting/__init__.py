"""A host, and what lives in it: agents in memory, each with its inbox, and what they need of it.

    host        claims, polls, hands over, lets go; claims, births, order, idle
                and unfit are parts of it
    activation  one agent, one epoch: its turns in their order; asked, calling, folded, inbox and
                suspects are parts of it
    services    what an activation needs of its host
    answers     callers in this process who wait
    directory   the agents' public records

What one turn collects is `runtime.turn`'s, what runs beside the turns `runtime.jobs`'.
"""
