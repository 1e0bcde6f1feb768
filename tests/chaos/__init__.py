"""Chaos: the real pipeline on a real broker, registry and database, while everything in turn is killed or stopped.

    faults    what can happen, each a function that does it and puts right what does not mend itself
    run       one seeded run: a session flows, faults strike, and in the end all results equal the undisturbed run
    breaches  ways to break the guarantee on purpose, to see that a run notices

`python -m tests.chaos --help` runs as many as one likes; test_chaos.py is the short version.
"""
