"""Malformed checkpoints, weights files and training states."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.description import digest_of
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.transforms.settings import PreparationSettings
from tests.hostile.case import PICKLE, Case, Payload, content, cuts
from tests.hostile.recipes import broken_json
from tests.hostile.studies import on_several_disks

Change = Callable[[dict[str, Any]], object]


def write_model(folder: Path) -> Path:
    """Writes the checkpoint of a small network."""
    torch.manual_seed(0)
    network = Network(NetworkSettings(encoder="test_resnet", shared_encoder=True), ["acl"])
    preparation = PreparationSettings(size=48, crop=32).to_dict()
    save_checkpoint(folder, network, preparation, {"data": "toy"})
    return folder


def cases(model: Path) -> Iterator[Case]:
    """Yields all cases.

    Args:
        model: a checkpoint whose copies are corrupted.
    """
    yield from _descriptions(model)
    yield from _contents(model)
    yield from _weights(model)
    yield from _states()


def _copy(model: Path, spoil: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        shutil.copytree(model, path)
        spoil(path)

    return write


def _file(model: Path, name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        (path / name).unlink()
        write(path / name)

    return _copy(model, spoil)


def _descriptions(model: Path) -> Iterator[Case]:
    whole = (model / "model.json").read_text()
    for name, text in broken_json(whole).items():
        yield Case("checkpoint", name, _file(model, "model.json", content(text)))

    def changed_by(change: Change) -> Callable[[Path], object]:
        description = json.loads(whole)
        change(description)
        return _file(model, "model.json", content(_sealed(description)))

    for key in json.loads(whole):
        rest = {name: value for name, value in json.loads(whole).items() if name != key}
        for name, changed in (("no", rest), ("another kind of", {**rest, key: 7.5})):
            text = json.dumps(changed) if key == "digest" else _sealed(changed)
            yield Case("checkpoint", f"{name} {key}", _file(model, "model.json", content(text)))
    edited = json.dumps({**json.loads(whole), "preparation": {"size": 48, "crop": 16}})
    write = _file(model, "model.json", content(edited))
    yield Case("checkpoint", "an edit without a digest", write, "changed after training")
    changes: dict[str, Change] = {
        "findings of numbers": lambda d: d.update(findings=[1]),
        "findings of lists": lambda d: d.update(findings=[[]]),
        "no finding": lambda d: d.update(findings=[]),
        "a finding twice": lambda d: d.update(findings=["acl", "acl"]),
        "a finding that is a path": lambda d: d.update(findings=["../acl"]),
        "more findings than the weights have": lambda d: d.update(findings=["meniscus", "acl"]),
        "10,000 findings": lambda d: d.update(findings=[f"f{i:05d}" for i in range(10_000)]),
        "an encoder of billions of weights": lambda d: d["settings"].update(
            encoder="vit_giant_patch14_dinov2", shared_encoder=False
        ),
        "an encoder without feature maps": lambda d: d["settings"].update(encoder="pit_b_224"),
        "an encoder with a classifier only": lambda d: d["settings"].update(encoder="coat_mini"),
        "an encoder from the internet": lambda d: d["settings"].update(encoder="hf-hub:evil/model"),
        "an encoder from a folder": lambda d: d["settings"].update(encoder="local-dir:/tmp"),
        "an encoder that is a path": lambda d: d["settings"].update(encoder="../../etc/passwd"),
        "an encoder that is a list": lambda d: d["settings"].update(encoder=[]),
        "an unknown setting": lambda d: d["settings"].update(class_path="os.system"),
        "10^9 frozen stages": lambda d: d["settings"].update(frozen_stages=10**9),
        "a preparation of 10^9 pixels": lambda d: d.update(
            preparation={"size": 10**9, "crop": 10**9, "mean": 0, "sd": 1}
        ),
        "a crop as text": lambda d: d["preparation"].update(crop="224"),
        "a crop of 22.5 pixels": lambda d: d["preparation"].update(crop=22.5),
        "an unknown setting of the preparation": lambda d: d["preparation"].update(turn=3),
        "no mean": lambda d: d["preparation"].pop("mean"),
        "SD 0": lambda d: d["preparation"].update(sd=0),
        "a calibration of another kind": lambda d: d.update(decisions={"calibration": 3}),
        "a calibration with slope 0": lambda d: d.update(
            decisions={"calibration": _calibration(slope=0)}
        ),
        "a calibration of another finding": lambda d: d.update(
            decisions={"calibration": _calibration(finding="cyst")}
        ),
        "operating points of another kind": lambda d: d.update(decisions={"operating_points": 3}),
        "an operating point that is a number": lambda d: d.update(
            decisions={"operating_points": {"acl": [3]}}
        ),
        "weights with another checksum": lambda d: d.update(weights_sha256="0" * 64),
        "a mean of 10^400": lambda d: d["preparation"].update(mean=10**400),
        "a mean that is true": lambda d: d["preparation"].update(mean=True),
        "an SD of 10^-300": lambda d: d["preparation"].update(sd=1e-300),
        "a slope as text": lambda d: d.update(decisions={"calibration": _calibration("nan")}),
        "a slope that is true": lambda d: d.update(decisions={"calibration": _calibration(True)}),
        "a slope below 0": lambda d: d.update(decisions={"calibration": _calibration(-1.0)}),
        "a slope of 10^300": lambda d: d.update(decisions={"calibration": _calibration(1e300)}),
        "an intercept as text": lambda d: d.update(
            decisions={"calibration": {**_calibration(), "intercepts": {"acl": "inf"}}}
        ),
        "a threshold above 1": lambda d: d.update(decisions=_point(threshold=1.5)),
        "a threshold as text": lambda d: d.update(decisions=_point(threshold="0.5")),
        "a threshold of another finding": lambda d: d.update(decisions=_point("cyst")),
        "decisions with another name": lambda d: d.update(decisions={"thresholds": {}}),
        "a recipe that is a list": lambda d: d["provenance"].update(recipe=[]),
        "a part that is a number": lambda d: d["provenance"].update(selected_on={"part": 3}),
        "packages in a list": lambda d: d["provenance"].update(environment={"packages": ["torch"]}),
        "planes of 0 exams": lambda d: d["provenance"].update(
            planes={"axial": 0, "coronal": 0, "sagittal": 0}
        ),
        "planes with other names": lambda d: d["provenance"].update(planes={"oblique": 3}),
        "a lone surrogate": lambda d: d["provenance"].update(data="\ud800"),
        "a lone surrogate in a name": lambda d: d["provenance"].update({"\udfff": 1}),
        "provenance 60 deep": lambda d: d["provenance"].update(more=_nested(60)),
    }
    for name, change in changes.items():
        yield Case("checkpoint", name, changed_by(change))


def _sealed(description: dict[str, Any]) -> str:
    """Returns the description with a correct digest, so that the following checks are reached."""
    return json.dumps({**description, "digest": digest_of(description)})


def _nested(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def _point(finding: str = "acl", threshold: object = 0.5) -> dict[str, Any]:
    point = {"rule": "Youden", "threshold": threshold, "n_positive": 3, "n_negative": 3}
    return {"operating_points": {finding: [{**point, "reason": None}]}}


def _calibration(slope: object = 1.0, finding: str = "acl") -> dict[str, Any]:
    return {
        "method": "platt",
        "slopes": {finding: slope},
        "intercepts": {finding: 0.0},
        "prevalences": {finding: 0.5},
        "exams": {finding: 9},
        "reasons": {},
    }


def _contents(model: Path) -> Iterator[Case]:
    """Yields weights that don't match the description; its checksum is corrected if necessary."""
    whole = (model / "weights.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for case in cuts("checkpoint", whole, [0, 8, header, len(whole)]):
        yield Case("checkpoint", case.name, _file(model, "weights.safetensors", case.write))

    def resealed(data: bytes) -> Callable[[Path], object]:
        def spoil(path: Path) -> None:
            description = json.loads((path / "model.json").read_text())
            description["weights_sha256"] = hashlib.sha256(data).hexdigest()
            (path / "model.json").write_text(_sealed(description))
            (path / "weights.safetensors").write_bytes(data)

        return _copy(model, spoil)

    tensors = safetensors.torch.load(whole)
    name = next(name for name, one in tensors.items() if one.is_floating_point())

    def with_one(tensor: torch.Tensor) -> bytes:
        return safetensors.torch.save({**tensors, name: tensor})

    filling = b"\0" * len(whole)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    for what, data in {
        "weights of NaN": with_one(tensors[name] * float("nan")),
        "weights of infinity": with_one(tensors[name] + float("inf")),
        "a weight of another shape": with_one(torch.zeros(7, 7, 7)),
        "a pickle as weights": PICKLE + filling,
        "a PyTorch file as weights": buffer.getvalue(),
        "weights of another network": safetensors.torch.save(
            {f"other.{key}": one for key, one in tensors.items()}
        ),
        "a header of 2^63": struct.pack("<Q", 2**63) + filling,
        "a header longer than the file": struct.pack("<Q", 2 * len(whole)) + filling,
        "a header of 99 MB": struct.pack("<Q", 99_000_000) + filling,
        "a header of nested lists": _headed("[" * 50_000) + filling,
        "a tensor of 10^12 elements": _headed(
            '{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
        )
        + filling,
        "a tensor before the start of the file": _headed(
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}'
        )
        + filling,
        "a tensor twice": _headed(
            '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        )
        + filling,
        "an unknown type": _headed('{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,1]}}')
        + filling,
    }.items():
        yield Case("checkpoint", what, resealed(data))

    def hole(path: Path) -> None:
        os.truncate(path / "weights.safetensors", 10**12)

    yield Case("checkpoint", "a hole of 10^12 bytes", _copy(model, hole), "too large")
    for part in ("model.json", "weights.safetensors"):
        yield Case("checkpoint", f"{part} missing", _file(model, part, lambda _: None), "missing")
        yield Case("checkpoint", f"{part} as pipe", _file(model, part, os.mkfifo), "regular file")
        yield Case("checkpoint", f"{part} as folder", _file(model, part, os.mkdir), "regular file")
        device = _file(model, part, lambda path: path.symlink_to("/dev/zero"))
        yield Case("checkpoint", f"{part} as device", device, "regular file")


def _headed(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode()


def _weights(model: Path) -> Iterator[Case]:
    """Yields files for `--weights`."""
    whole = (model / "weights.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for case in cuts("weights", whole, [0, 8, header, len(whole)]):
        yield Case("weights", case.name + ", safetensors", _suffixed(case, ".safetensors"))
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, buffer)
    stored = buffer.getvalue()
    for case in cuts("weights", stored, [0, 30, 100, len(stored) // 2, len(stored) - 22]):
        yield Case("weights", case.name + ", PyTorch", _suffixed(case, ".pth"))
    zipped = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(stored)) as parts,
        zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for part in parts.namelist():
            packed.writestr(part, parts.read(part) if "data/0" not in part else bytes(10**8))
    with_payload = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": Payload()}, with_payload)
    old_payload = io.BytesIO()
    torch.save({"a": Payload()}, old_payload, _use_new_zipfile_serialization=False)
    network = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), network)
    others: dict[str, tuple[bytes, str]] = {
        "pickle": (PICKLE, ".pth"),
        "pickle named .safetensors": (PICKLE, ".safetensors"),
        "payload among tensors": (with_payload.getvalue(), ".pth"),
        "payload in the old format": (old_payload.getvalue(), ".pt"),
        "pickled network": (network.getvalue(), ".pth"),
        "on several disks": (on_several_disks(stored[200:]), ".pth"),
        "compressed to a bomb": (zipped.getvalue(), ".pth"),
        "no tensors": (_torch_bytes({"epoch": 3}), ".pth"),
        "one tensor": (_torch_bytes(torch.zeros(3)), ".pth"),
        "a list of tensors": (_torch_bytes([torch.zeros(3)]), ".pth"),
        "10^12 bytes requested": (
            b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x10\xa5\xd4\xe8\x85R.",
            ".pth",
        ),
        "text": (b"not a network", ".pth"),
        "empty safetensors": (b"", ".safetensors"),
        "pickle of a dictionary": (pickle.dumps({i: i for i in range(1000)}), ".pth"),
    }
    for name, (data, suffix) in others.items():
        yield Case("weights", name, content(data, suffix))
    yield Case("weights", "missing file", lambda _: None, "is missing")
    yield Case("weights", "a pipe", lambda p: os.mkfifo(p.with_name(p.name + ".pth")))


def _torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _suffixed(case: Case, suffix: str) -> Callable[[Path], object]:
    return lambda path: case.write(path.with_name(path.name + suffix))


def _states() -> Iterator[Case]:
    """Yields run folders with a malformed `resume/last.ckpt`."""
    good = _torch_bytes({"done": {"epoch": 1, "batches": 0}, "loop": {}})
    states = {case.name: case.write for case in cuts("resume", good, [0, 30, len(good) // 2])}
    for name, data in {
        "pickle": PICKLE,
        "payload": _torch_bytes({"done": Payload(), "loop": {}}),
        "a state of another program": _torch_bytes({"state_dict": {}}),
        "a list": _torch_bytes([1]),
        "other fields": _torch_bytes({"done": {"x": 1}, "loop": {}}),
        "text": b"epoch 3",
    }.items():
        states[name] = content(data)
    for name, write in states.items():

        def run(path: Path, write: Callable[[Path], object] = write) -> None:
            (path / "resume").mkdir(parents=True)
            write(path / "resume" / "last.ckpt")

        yield Case("resume", name, run, "state to resume from")
