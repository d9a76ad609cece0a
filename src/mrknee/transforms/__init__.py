"""Preparation of exams as network input: tensors, augmentation and batches.

- `settings`: settings of the preparation and of the augmentation (no torch).
- `preparation`: resizing, cropping and normalisation for training and prediction.
- `traced`: the same preparation as a graph of tensor operations for export, for any input size.
- `frame_onnx`: the resizing and cropping of `traced` in ONNX.
- `augmentation`: random transforms, drawn from (seed, epoch, exam id), then applied.
- `intensity`: random changes of grey values: gamma, bias field, noise; drawn, then applied.
- `slice_sampling`: the choice of slices, at random in training.
- `random_streams`: independent random numbers for each kind of draw.
- `batches`: ragged batches: the slices of all exams in one tensor per series, and their lengths.
"""
