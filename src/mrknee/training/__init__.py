"""LEARN: a recipe and a data set become a run folder.

- `recipe`: the typed settings tree; `recipes/*.yaml` are its named instances.
- `objective`: the masked, weighted multi-task loss.
- `loop`: optimizer steps and validations, epoch by epoch; its state can be saved and restored.
- `record`: what is written and shown while training goes on.
- `curves`: TensorBoard, W&B, MLflow.
- `environment`: where and with what a run was made.
- `run`: all of it, from a data set to a run folder.
"""
