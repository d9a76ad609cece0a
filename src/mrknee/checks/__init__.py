"""Checks of a data set before training. No torch.

Start with `check`, which runs all checks, and `problem`, which defines what they report:

- `check`: runs all checks on a data set.
- `problem`: all kinds of problems: code, severity, meaning, advice.
- `layout`: splits, series, unrecognised files, ids in two splits.
- `stacks`: reading of all stacks in parallel; unusual sizes and slice counts.
- `orders`: axes in an order other than (slices, rows, cols).
- `labels`: label files, consistency of labels, prevalences of train and valid.
- `similarity`: similarity of two stacks, robust to cropping, mirroring and brightness.
- `duplicates`: copies and near-duplicates, within and across splits.
- `planes`: stacks that look like a plane other than that of their folder.
- `facts`: the result, also as JSON; `table`: the result as text.

`docs/reference/checks.md` describes the checks and `docs/results/checks.md` their accuracy.
"""
