"""Networks: one logit per finding from the slices of an exam's series.

The steps of the computation:

    slices -> encoder (one per series) -> feature map -> mean over pixels -> pooling over slices
           -> concatenation of the series -> one linear layer -> one logit per finding

or, if scores are pooled instead of features:

    slices -> encoder -> feature map -> linear layer, one score per finding and cell
           -> pooling over the cells and slices of a series -> sum over series

Start with `network`. All modules:

- `settings`: NetworkSettings, the architecture (no torch, so that it is imported quickly).
- `catalogue`: the known encoders, with statistics, weights and licences (no torch).
- `encoders`: Encoder: slices to feature maps, built from a name and a source of weights.
- `bodies`: networks of torchvision or timm, reduced to what the feature maps need.
- `neck`: reduction of feature maps to one with few channels.
- `folding`: batch normalisations folded into convolutions.
- `elnet`: encoders as in ELNet.
- `weights`: pretrained weights: downloads, files, the extra `lite0`.
- `pooling`: slices of an exam to one feature vector: maximum, mean or attention.
- `slice_transformer`: slices that attend to each other, for the setting `transformer`.
- `evidence`: scores of an exam's cells to one logit per finding.
- `chunked_encoding`: encoding in chunks, which limits memory in training.
- `feature_cache`: feature maps of frozen encoders, stored on disk.
- `network`: Network: ragged batches of slices to logits.
- `prediction`: batches of exams to probabilities.
- `transfer`: initialisation with the weights of a trained network.
- `description`: validation of a model's description: types, ranges, digest (no torch).
- `checkpoint`: saving and loading of trained networks without pickle.

Importing this package imports none of its modules, which keeps the command line fast.
"""
