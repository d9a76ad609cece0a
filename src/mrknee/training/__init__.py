"""Training: from a recipe and a data set to a run folder.

To read the code, start with `run`, then `loop`.

- `run`: the complete training run, from a data set to a run folder.
- `recipe`: the settings; `recipes/*.yaml` are named instances. `recipe_yaml` reads YAML,
  `arguments` the command line of `mrknee train`.
- `parts`: which exams are trained on, select the epoch, or validate. `coverage` finds missing
  labels, `data_record` changes of the data since the run was started.
- `estimate`, `memory`, `out_of_memory`: estimated peak memory and time per epoch, free memory,
  and the error when memory runs out.
- `loss`, `optimization`: the masked, weighted multi-task loss; optimizer and learning rate.
- `loop`: optimizer steps and validation, epoch by epoch; its state can be saved and restored.
  `epoch_result` holds the predictions of an epoch, `distributed` connects several processes.
- `run_writer`, `loggers`: files written during training; TensorBoard, W&B, MLflow.
- `resumption`, `recovery`, `extension`: the saved state, the choice of the state that a run starts
  from, and resuming with more epochs.
- `environment`: software versions and the machine.
- `evaluation`: after the last epoch: calibration, operating points, scores on `valid`.
"""
