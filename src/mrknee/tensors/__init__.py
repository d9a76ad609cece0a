"""EXAMS AS NETWORK INPUT.

- `preparation`: crop, scale, normalise: one definition for training, serving and export.
- `augmentation`: random views, drawn from (seed, epoch, exam id), then applied.
- `batches`: a ragged Batch: all slices of all exams in one tensor a plane, lengths beside it.
"""
