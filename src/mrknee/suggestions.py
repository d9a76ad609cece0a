"""Suggestions for unknown commands, options and settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_CUTOFF = 0.7
"""Minimum similarity (difflib's ratio, 0 to 1) of a suggestion; with difflib's default of 0.6,
`fast` would suggest `factor`."""

SETTINGS: Mapping[str, str] = {
    "amp": "precision",
    "arch": "network.encoder",
    "architecture": "network.encoder",
    "accumulate_grad_batches": "accumulate",
    "backbone": "network.encoder",
    "batch": "batch_exams",
    "batch_size": "batch_exams",
    "bs": "batch_exams",
    "classes": "findings",
    "class_weights": "pos_weight",
    "clip": "optimizer.clip_norm",
    "config": "recipe",
    "crop_size": "preparation.crop",
    "cv": "folds",
    "early_stopping": "selection.early_stop",
    "early_stopping_patience": "selection.early_stop",
    "epoch": "epochs",
    "fp16": "precision",
    "freeze": "network.frozen_stages",
    "grad_accum": "accumulate",
    "gradient_accumulation": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "grad_clip": "optimizer.clip_norm",
    "gradient_clip_val": "optimizer.clip_norm",
    "image_size": "preparation.size",
    "img_size": "preparation.size",
    "input_size": "preparation.size",
    "jobs": "workers",
    "k_folds": "folds",
    "kfold": "folds",
    "labels": "findings",
    "log": "loggers",
    "logger": "loggers",
    "lr": "optimizer.learning_rate",
    "lr_scheduler": "schedule.name",
    "max_epoch": "epochs",
    "max_epochs": "epochs",
    "max_grad_norm": "optimizer.clip_norm",
    "mixed_precision": "precision",
    "model": "network.encoder",
    "n_epochs": "epochs",
    "n_folds": "folds",
    "n_jobs": "workers",
    "n_splits": "folds",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "optim": "optimizer.name",
    "output": "out",
    "output_dir": "out",
    "pooling": "network.slice_pooling",
    "pretrained": "weights",
    "random_seed": "seed",
    "random_state": "seed",
    "run_dir": "out",
    "save_dir": "out",
    "scheduler": "schedule.name",
    "std": "preparation.sd",
    "targets": "findings",
    "tasks": "findings",
    "val_split": "selection.fraction",
    "validation_split": "selection.fraction",
    "wd": "optimizer.weight_decay",
}
"""Names of settings in other programs -> settings of `mrknee train`."""

OPTIONS: Mapping[str, str] = {
    "backend": "runtime",
    "cpus": "threads",
    "engine": "runtime",
    "exam_id": "exam",
    "id": "exam",
    "jobs": "threads",
    "n_jobs": "threads",
    "num_threads": "threads",
    "num_workers": "threads",
    "o": "out",
    "output": "out",
    "output_dir": "out",
    "output_file": "out",
    "quantise": "int8",
    "quantize": "int8",
    "random_seed": "seed",
    "random_state": "seed",
    "subset": "split",
    "workers": "threads",
}
"""Names of options in other programs -> options of the other commands."""

COMMANDS: Mapping[str, str] = {
    "ablate": "experiment",
    "backbones": "encoders",
    "benchmark": "evaluate",
    "convert": "import",
    "dicom": "import",
    "diff": "compare",
    "fit": "train",
    "generate": "phantom",
    "gradcam": "explain",
    "heatmap": "explain",
    "infer": "predict",
    "kaggle": "rsna",
    "inference": "predict",
    "ingest": "import",
    "interpret": "explain",
    "learn": "train",
    "lint": "check",
    "models": "encoders",
    "onnx": "export",
    "prediction": "predict",
    "save": "export",
    "score": "evaluate",
    "server": "serve",
    "simulate": "phantom",
    "start": "serve",
    "sweep": "experiment",
    "synth": "phantom",
    "test": "evaluate",
    "training": "train",
    "validate": "check",
    "verify": "check",
}
"""Names of commands in other programs -> ours."""


def suggest(name: str, known: Collection[str], synonyms: Mapping[str, str]) -> str | None:
    """Returns the known name that was most likely intended; None if none is close.

    Candidates in this order: a name that differs only in case, `-` and `_`; a synonym; a name with
    the same last part (`dropout` is `network.dropout`); the first setting of a group (`network` is
    `network.encoder`); a name with similar spelling.

    Args:
        name: the unknown name, without leading dashes.
        known: all valid names.
        synonyms: other names -> valid names; those that are not in `known` are ignored.
    """
    normalised = _normalised(name)
    by_name = {_normalised(valid): valid for valid in known}
    if normalised in by_name:
        return by_name[normalised]
    last = normalised.rpartition(".")[2]
    for synonym in (normalised, last):
        if synonyms.get(synonym) in known:
            return synonyms[synonym]
    by_last = {key.rpartition(".")[2]: valid for key, valid in by_name.items()}
    if last in by_last:
        return by_last[last]
    in_group = [key for key in by_name if key.startswith(f"{normalised}.")]
    if in_group:
        return by_name[in_group[0]]
    from difflib import get_close_matches  # imported here because it is rarely needed

    candidates = {**by_last, **by_name}
    similar = get_close_matches(normalised, candidates, n=1, cutoff=_CUTOFF)
    similar = similar or get_close_matches(last, candidates, n=1, cutoff=_CUTOFF)
    return candidates[similar[0]] if similar else None


def _normalised(name: str) -> str:
    return name.lower().replace("-", "_")
