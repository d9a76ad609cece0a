"""Export of a trained model to one ONNX file, which `mrknee.inference` reads without torch.

- `onnx`: run folder -> ONNX file, verified before it is written.
- `graph`: the exported network.
- `quantisation`: 8-bit quantisation of the graph, and its effect on the AUCs.
"""
