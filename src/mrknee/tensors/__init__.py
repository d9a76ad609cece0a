"""EXAMS AS NETWORK INPUT.

- `settings`: settings of the preparation and of the augmentation (no torch).
- `preparation`: crop, scale, normalise: one definition for training, serving and export.
- `traced`: the same preparation as a graph of tensor operations, for one exam of any size.
- `augmentation`: random views, drawn from (seed, epoch, exam id), then applied.
- `batches`: a ragged Batch: all slices of all exams in one tensor a plane, lengths beside it.
"""
