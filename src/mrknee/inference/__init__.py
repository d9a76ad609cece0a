"""Inference: probabilities and explanations of exams from trained models.

- `model`: common interface of trained models; loads a run folder or an ONNX file (no torch).
- `ensemble`: several models as one (no torch).
- `torch_model`: a model in a run folder, computed by torch.
- `onnx_model`: a model in an ONNX file (no torch); `onnx_file` reads the file, `onnx_graph` checks
  its graph, `runtimes` compute it.
- `ablation`: predictions without some series or slices of an exam (no torch).
- `trained_series`: removes series that a model was not trained on.
- `submission`: interface of the MRNet competition.
"""

import os

# unless this is set before the import, ONNX Runtime stores an identifier in the home folder and
# sends usage data to Microsoft (Privacy.md in its package)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
