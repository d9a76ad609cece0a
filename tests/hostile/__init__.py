"""Malformed input, interruptions and full disks; mirrors no package of `src`.

Contains what applies to all readers: a corpus of malformed files that the tests write (`case`, and
one module per format), each read in a monitored process (`worker`), some through the command line;
nothing is unpickled; a killed process or a full disk leaves no incomplete file. The rules of one
format are tested in the folder of its reader.
"""
