"""Computes the values of `tests/golden` with the present code.

Every input is drawn by numpy from a fixed seed or written here, so that a value changes only if
the code that computes it, or a library, changes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits

from mrknee.exams import MRNET_FINDINGS, PLANES, Exam, Plane
from mrknee.export.onnx import export
from mrknee.inference.model import Model, load_model
from mrknee.metrics.calibration import Calibration
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.sources.phantom.exam import render_exam
from mrknee.sources.phantom.lesions import Truth
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
from mrknee.transforms.augmentation import apply_view, draw_views
from mrknee.transforms.batches import frame_exam, join
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings, PreparationSettings
from tests.conftest import write_toy_dataset

Values = dict[str, np.ndarray]

SLICES = {"few": (3, 5, 4), "one": (1, 1, 1), "uneven": (7, 2, 3), "many": (17, 24, 30)}
"""Exam -> slices (axial, coronal, sagittal)."""


def machine() -> dict[str, str]:
    """Returns what determines the last bits of results: values are bit-equal if it is equal."""
    return {
        "processor": platform.machine() + " " + torch.backends.cpu.get_cpu_capability(),
        "bfloat16": str(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def exam(name: str, slices: tuple[int, int, int], side: int = 256) -> Exam:
    """Returns an exam of noise with another brightness per plane; 0 slices omit the plane."""
    rng = np.random.default_rng([*name.encode()])
    stacks = {
        plane: rng.integers(0, 140 + 30 * index, (count, side, side)).astype(np.uint8)
        for index, (plane, count) in enumerate(zip(PLANES, slices, strict=True))
        if count
    }
    return Exam(name, stacks, dict.fromkeys(MRNET_FINDINGS, float("nan")))


def network(settings: NetworkSettings) -> Network:
    """Returns a network whose weights are drawn by numpy, one tensor after the other."""
    made = Network(settings, MRNET_FINDINGS)
    rng = np.random.default_rng(11)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if not tensor.is_floating_point() or name.endswith("running_mean"):
                continue
            fan = max(tensor[0].numel(), 1) if tensor.ndim > 1 else 1
            drawn = rng.standard_normal(tuple(tensor.shape)) * np.sqrt(2 / fan)
            if name.endswith("running_var") or (tensor.ndim == 1 and "weight" in name):
                drawn = 1 + 0.1 * np.abs(drawn)
            elif tensor.ndim == 1:
                drawn = 0.01 * drawn
            tensor.copy_(torch.from_numpy(drawn.astype(np.float32)))
    return made.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch and numpy to one thread, because more may add in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def reference_logits() -> Values:
    """Returns logits of the reference network, including exams with missing planes."""
    made, preparation = network(NetworkSettings()), Preparation()
    exams = {name: exam(name, slices) for name, slices in SLICES.items()}
    exams |= {"no-axial": exam("no-axial", (0, 4, 3)), "sagittal": exam("sagittal", (0, 0, 6))}
    with torch.no_grad(), one_thread():
        batches = {name: join([frame_exam(one, preparation)]) for name, one in exams.items()}
        return {
            f"logits/{name}": made(batch.prepared(preparation), batch.lengths).numpy()
            for name, batch in batches.items()
        }


def reference_parameters() -> list[list[Any]]:
    """Returns name and shape of every weight of a `reference` checkpoint, in order."""
    state = Network(load_recipe("reference").network, MRNET_FINDINGS).state_dict()
    return [[name, list(tensor.shape)] for name, tensor in state.items()]


def augmentation_draws() -> list[dict[str, Any]]:
    """Returns the draws for fixed (seed, epoch, exam id)."""
    draws: list[dict[str, Any]] = []
    for kind in ("exam", "plane"):
        for seed, epoch, name in ((0, 0, "0000"), (0, 1, "0000"), (7, 0, "1130"), (7, 49, "a-b")):
            views = draw_views(AugmentationSettings(draw=kind), seed, epoch, name)
            drawn = {str(plane): asdict(view) for plane, view in views.items()}
            draws.append({"draw": kind, "seed": seed, "epoch": epoch, "id": name, "views": drawn})
    return draws


def augmented_pixels() -> Values:
    """Returns augmented stacks, cropped from MRNet's size and scaled from another."""
    values: Values = {}
    small = Preparation(size=64, crop=48)
    for side in (64, 90):
        one = exam("augmented", (2, 3, 2), side)
        views = draw_views(AugmentationSettings(), 3, 2, one.id)
        for plane, stack in one.stacks.items():
            turned = apply_view(np.asarray(stack), views[Plane(plane)], small)
            values[f"augmented/{side}/{plane}"] = turned.numpy()
    return values


def phantom_stacks() -> Values:
    """Returns stacks and lesion masks of one synthetic knee."""
    truth = Truth(abnormal=True, acl=True, meniscus=True)
    with one_thread():
        knee = render_exam(5, truth, size=48, slice_factor=0.2)
    values: Values = {f"phantom/{plane}": stack for plane, stack in knee.stacks.items()}
    for finding, masks in knee.masks.items():
        for plane, mask in masks.items():
            values[f"phantom/{finding}/{plane}"] = np.packbits(mask)
    return values


def trained_weights(folder: Path) -> Values:
    """Returns weights after one epoch of eight steps of the recipe `reference`, at 64 pixels.

    For each tensor: its sum, the sum of its absolute values and its first eight values.
    """
    data = write_toy_dataset(folder / "data", 8, 8, pixels=64)
    body = network(NetworkSettings()).encoder("axial").body.state_dict()
    save_file({f"features.{k}": v for k, v in body.items()}, folder / "alexnet.safetensors")
    recipe = load_recipe("reference").replace(
        weights=str(folder / "alexnet.safetensors"),
        preparation=PreparationSettings(size=64, crop=64),
        epochs=1,
        workers=0,
        precision="32-true",
        keep_every_epoch=False,
        loggers=[],
    )
    with one_thread():
        train(data, folder / "run", recipe)
    state = load_file(folder / "run" / "last" / "weights.safetensors")
    return {
        f"trained/{name}": np.array(
            [tensor.sum(dtype=np.float64), np.abs(tensor).sum(dtype=np.float64), *tensor.flat[:8]]
        )
        for name, tensor in sorted(state.items())
    }


def decisions() -> dict[str, Any]:
    """Returns a calibration that changes every probability."""
    calibration = Calibration(
        method="platt",
        slopes=dict.fromkeys(MRNET_FINDINGS, 0.5),
        intercepts=dict.fromkeys(MRNET_FINDINGS, -0.25),
        prevalences=dict.fromkeys(MRNET_FINDINGS, 0.4),
        exams=dict.fromkeys(MRNET_FINDINGS, 20),
        reasons={},
    )
    return {"calibration": calibration.to_dict()}


def small_models(folder: Path) -> dict[str, Model]:
    """Returns the model of a small run folder with a calibration, and that of its exported file."""
    preparation = Preparation(size=64, crop=48)
    run = folder / "model"
    settings = NetworkSettings(encoder="test_resnet", shared_encoder=True)
    save_checkpoint(run, network(settings), preparation.to_dict(), {"data": "none"}, decisions())
    export(run, folder / "model.onnx")
    return {"folder": load_model(run), "onnx": load_model(folder / "model.onnx", threads=1)}


def small_model_results(folder: Path) -> Values:
    """Returns predictions and explanations of the run folder and of its exported file."""
    values: Values = {}
    models = small_models(folder)
    exams = [exam("few", (3, 5, 4), 64), exam("uneven", (2, 4, 3), 80), exam("lone", (0, 0, 3), 64)]
    for kind, model in models.items():
        with one_thread():
            values[f"{kind}/probabilities"] = model.predict(exams).probabilities
            explanations = [model.explain(one) for one in exams]
        for one, why in zip(exams, explanations, strict=True):
            values[f"{kind}/{one.id}/logits"] = why.logits
            values[f"{kind}/{one.id}/bias"] = why.bias
            for plane in one.stacks:
                scores = why.slice_scores(plane)
                values[f"{kind}/{one.id}/scores/{plane}"] = scores
                heat = np.stack([why.heat(plane, finding) for finding in why.findings])
                values[f"{kind}/{one.id}/heat/{plane}"] = heat[:, :, ::9, ::9]
    return values
