"""The store contract in executable form: every test runs on every store.

    stores      the table of stores; another backend is one line more
    kit         short words for commits
    test_*      one claim of the contract each
    model       the contract again, naive and slow, as oracle
    test_machine   random work on a store and on the model, every read compared

`TROUPE_CONFORMANCE=full` makes the random part 200 runs of 50 steps.
"""
