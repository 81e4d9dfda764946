"""The store: everything that outlives a process, behind one contract.

contract    what every store does; records are its data
rules       what a commit must keep; each store asks here before it writes
memory      in one process, the model of the others
sqlite      one file, on the event loop: transactions run over book, which is made of
            agents, inbox, documents, terms, journal, steps and feed
redis       Lua scripts over a pipeline; base, judge and write are what they share
remote      a store elsewhere: wire says what goes over, frames, channel and server how
backup, restore, copies   a file's copy while it is in use, and its return
through     a store with something before each call: faults, notes, a clock
"""
