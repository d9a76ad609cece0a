"""Networks: the slices of an exam's series in, one logit per finding out.

The steps of the computation:

    slices -> encoder (one per series) -> feature map -> mean over pixels -> pooling over slices
           -> the series side by side -> one linear layer -> one logit per finding

- `settings`: NetworkSettings, what a network is made of (no torch: quick to import);
- `catalogue`: the encoders known by name, with statistics, weights and licences (no torch);
- `encoders`: a name and a source of weights -> an Encoder: pictures to feature maps;
- `weights`: where pretrained weights come from: a download, a file, the extra `lite0`;
- `pooling`: the slices of an exam -> one feature vector: maximum, mean or attention;
- `network`: Network, the whole way, from ragged batches of slices to logits;
- `prediction`: batches of exams to probabilities;
- `transfer`: starting a network with the weights of a trained one;
- `description`: what is said of a trained model: kinds, ranges, digest (no torch);
- `checkpoint`: a trained network on disk and back, with nothing pickled.

Importing this package imports none of them, so that the command line stays quick.
"""
