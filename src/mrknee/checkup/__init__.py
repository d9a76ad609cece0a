"""WHAT IS WRONG WITH IT: a data set looked through before a run is spent on it. No torch.

- `problem`: every kind of problem: its code, how bad it is, what to do.
- `layout`: splits, series, files that belong to nothing, ids in two splits.
- `stacks`: each stack read once, on all cores; sizes and slice counts unlike the rest.
- `orders`: axes in another order than (slices, rows, cols).
- `labels`: label files, label logic, prevalences of train and valid.
- `likeness`: how alike two stacks are, whatever was cropped, mirrored or brightened.
- `duplicates`: copies, and exams that are too alike, inside and across splits.
- `planes`: stacks that look like another plane than their folder says.
- `facts`: what is told in the end, as JSON; `table`: the same for a person.
- `check`: all of it.

`docs/reference/checks.md` says how each is done and how well it works.
"""
