"""Tests; `check` holds every annotation of the package, shapes too, while they run."""

from beartype import BeartypeConf, beartype

# an int is as good as a float (PEP 484's numeric tower)
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
