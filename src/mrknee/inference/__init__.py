"""Inference: a trained model on exams.

- `model`: what any trained model does; opens a run folder or an ONNX file (no torch).
- `torch_model`: a run folder, computed by torch.
- `explanation`: a logit taken apart into series, slices and pixels (no torch).
- `faithfulness`: are maps true to their network? Deletion, random weights.
- `map_validation`: `mrknee validate-maps`: localisation and deletion on a data set.
- `export`: a run folder -> one ONNX file, proven; `graph` is what it exports.
- `quantisation`: the graph in 8 bits, and what that costs in AUC.
- `onnx_model`: an ONNX file: exams -> probabilities and explanations (no torch); `onnx_file` is
  its bytes, `onnx_metadata` its metadata, `onnx_graph` what its graph may hold, `runtimes` is
  what computes it.
- `trained_series`: series that a model was not trained on are left out.
- `submission`: the MRNet competition's interface.
"""

import os

# ONNX Runtime, unless told not to before it is imported, notes an identifier in the home folder
# and reports its use to its maker (Privacy.md in its package)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
