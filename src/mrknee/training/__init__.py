"""LEARN: a recipe and a data set become a run folder.

- `recipe`: the typed settings tree; `recipes/*.yaml` are its named instances.
- `objective`: the masked, weighted multi-task loss.
- `module`: the one LightningModule.
- `record`: what is written and shown while training goes on.
- `compiling`: torch.compile for the encoders.
- `environment`: where and with what a run was made.
- `run`: all of it, from a data set to a run folder.
"""
