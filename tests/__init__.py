"""Tests; `check` holds every annotation of the package, shapes too, while they run."""

import os

from beartype import BeartypeConf, beartype

# one thread a process: pytest runs one process a core, and more would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

# an int is as good as a float (PEP 484's numeric tower)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
