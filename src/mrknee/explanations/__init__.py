"""Explanations: which series, slices and pixels a logit comes from, and whether that is true.

- `explanation`: decomposition of logits into series, slices and pixels (no torch); `plot` draws it.
- `localisation`: agreement of heat maps with known lesions (no torch).
- `faithfulness`: tests of heat maps without known lesions: deletion of slices, random weights.
- `map_validation`: localisation and deletion tests on a data set (`mrknee validate-maps`).
"""
