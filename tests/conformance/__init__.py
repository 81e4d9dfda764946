"""The store contract in executable form: every test runs on every store.

    stores      the table of stores; another backend is one line more
    kit         short words for commits
    test_*      one claim of the contract each
    model       the contract again, naive and slow, as oracle
    test_machine   random work on a store and on the model, every read compared

`make test` runs the random part briefly; `-m slow` makes it 200 runs of 50 steps.
"""
