"""Training: a recipe and a data set become a run folder.

- `recipe`: the settings; `recipes/*.yaml` are its named instances. `recipe_tree` reads YAML,
  `arguments` the command line of `mrknee train`.
- `parts`: which exams are trained on, select the epoch, or validate. `coverage` finds labels that
  are missing, `data_record` what has changed since the run was started.
- `estimate`, `machine`, `out_of_memory`: peak memory and time per epoch, memory that is free, and
  what is said when it runs out.
- `objective`, `optimization`: the masked, weighted multi-task loss; optimizer and learning rate.
- `loop`: optimizer steps and validations, epoch by epoch; its state can be saved and restored.
  `epoch_result` holds an epoch's predictions, `processes` joins several processes.
- `record`, `curves`: what is written while training goes on; TensorBoard, W&B, MLflow.
- `resumption`, `recovery`, `extension`: the saved state, which one an interrupted run goes on from,
  and more epochs than before.
- `environment`: versions and machine.
- `final`: after the last epoch: calibration, operating points, scores on `valid`.
- `run`: all of it, from a data set to a run folder.
"""
