"""Hostile and broken input: a room of its own, which mirrors no folder of the package.

What is common to all readers is tried here on all of them: a corpus of malformed files that the
tests write themselves (`case` and the files named after formats), each read in a worker process
that is watched (`worker`), some through the real command line; nothing is ever unpickled; a kill or
a full disk leaves nothing half-written. What one reader makes of its own format is tested in that
reader's room.
"""
