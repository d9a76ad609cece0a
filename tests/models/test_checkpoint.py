from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mrknee.errors import MrkneeError
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from tests.models.examples import FINDINGS, describe, random_batch

PREPARATION = {"size": 256, "crop": 224, "mean": 58.09, "sd": 50}
PROVENANCE = {"seed": 3, "data": "MRNet", "exams": {"train": 1130}}


@pytest.fixture
def network() -> Network:
    """A small network whose running statistics differ from the initial ones."""
    torch.manual_seed(0)
    settings = NetworkSettings(
        encoder="test_resnet", slice_pooling="attention", batchnorm="trained"
    )
    network = Network(settings, FINDINGS)
    network(*random_batch([(2, 3, 2)]))
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path, network: Network) -> Path:
    """The saved network."""
    save_checkpoint(tmp_path / "run" / "best", network, PREPARATION, PROVENANCE)
    return tmp_path / "run" / "best"


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(),
        NetworkSettings(encoder="test_vit", frozen_stages=2, dropout=0.25),
        NetworkSettings(encoder="test_resnet", shared_encoder=True, slice_pooling="attention"),
    ],
)
def test_a_round_trip_is_exact(tmp_path: Path, settings: NetworkSettings) -> None:
    """Settings, findings, weights and logits of a loaded network are equal bit for bit."""
    torch.manual_seed(1)
    network = Network(settings, ["acl", "other"]).eval()
    save_checkpoint(tmp_path, network, PREPARATION, PROVENANCE)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.network.settings == settings
    assert checkpoint.network.findings == ("acl", "other")
    assert checkpoint.preparation == PREPARATION
    assert checkpoint.provenance == PROVENANCE
    assert not checkpoint.network.training
    there, here = network.state_dict(), checkpoint.network.state_dict()
    assert list(there) == list(here)
    assert all(torch.equal(there[name], here[name]) for name in there)
    batch = random_batch([(2, 1, 2)])
    with torch.no_grad():
        assert torch.equal(network(*batch), checkpoint.network(*batch))


def test_running_statistics_are_kept(folder: Path, network: Network) -> None:
    """BatchNorm's running statistics are loaded as they were saved."""
    read = dict(load_checkpoint(folder).network.named_buffers())
    assert all(torch.equal(buffer, read[name]) for name, buffer in network.named_buffers())


def test_the_folder_holds_two_plain_files(folder: Path) -> None:
    """A checkpoint is exactly one safetensors file and one readable JSON file."""
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    description = json.loads((folder / "model.json").read_text())
    assert description["findings"] == list(FINDINGS)
    assert description["settings"]["encoder"] == "test_resnet"
    tensors = safetensors.torch.load_file(folder / "weights.safetensors")
    assert "head.weight" in tensors


def test_saving_again_replaces(folder: Path, network: Network) -> None:
    """A second save into the same folder replaces the first one."""
    with torch.no_grad():
        network.head.bias.fill_(7)
    save_checkpoint(folder, network, PREPARATION, {})
    assert load_checkpoint(folder).network.head.bias.tolist() == [7, 7, 7]
    assert len(list(folder.iterdir())) == 2


def test_a_failed_save_leaves_the_old_one(folder: Path, network: Network) -> None:
    """Saving something that JSON can't represent raises and leaves the folder unchanged."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(TypeError):
        save_checkpoint(folder, network, PREPARATION, {"seed": object()})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_loading_leaves_the_random_state(folder: Path) -> None:
    """Loading a checkpoint doesn't change torch's random state."""
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    load_checkpoint(folder)
    assert torch.equal(torch.rand(1), expected)


def spoil_weights(folder: Path, size: int | None = None, flip: int | None = None) -> None:
    """Truncates the weights file, or flips a bit in it."""
    file = folder / "weights.safetensors"
    content = bytearray(file.read_bytes()[:size])
    if flip is not None:
        content[flip] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spoil", "file", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "model.json", "No such file"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors", "No such file"),
        (lambda f: spoil_weights(f, size=0), "weights.safetensors", "0 bytes"),
        (lambda f: spoil_weights(f, size=1000), "weights.safetensors", "1000 bytes"),
        (lambda f: spoil_weights(f, flip=-1), "weights.safetensors", "sha256"),
        (lambda f: (f / "model.json").write_text("{"), "model.json", "JSON"),
        (lambda f: (f / "model.json").write_bytes(b"\x80\x04\x95"), "model.json", "JSON"),
        (lambda f: (f / "model.json").write_text("[]"), "model.json", "format"),
        (lambda f: describe(f, lambda d: d.update(format=99)), "model.json", "format 99"),
        (lambda f: describe(f, lambda d: d.pop("provenance")), "model.json", "'provenance'"),
        (
            lambda f: describe(f, lambda d: d.update(findings="acl")),
            "model.json",
            "findings: a list",
        ),
        (lambda f: describe(f, lambda d: d.update(parameters=7)), "model.json", "7 parameters"),
        (lambda f: describe(f, lambda d: d["settings"].pop("dropout")), "model.json", "dropout"),
        (lambda f: describe(f, lambda d: d["settings"].update(x=1)), "model.json", "settings"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    folder: Path, spoil: Callable[[Path], object], file: str, message: str
) -> None:
    """A missing, truncated or changed file, or another version, raises and names the file."""
    spoil(folder)
    with pytest.raises(MrkneeError) as caught:
        load_checkpoint(folder)
    assert caught.value.file == str(folder / file)
    assert message in str(caught.value)
    assert caught.value.expected
    assert caught.value.found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", [{"slice_pooling": "best"}, {"encoder": "x"}, {"dropout": "0"}])
def test_impossible_settings_are_named(folder: Path, wrong: dict[str, Any]) -> None:
    """Invalid network settings in a checkpoint raise the same errors as elsewhere."""
    describe(folder, lambda d: d["settings"].update(wrong))
    with pytest.raises(MrkneeError, match=r"encoder|slice_pooling|dropout"):
        load_checkpoint(folder)


def test_weights_of_another_network_are_refused(folder: Path, network: Network) -> None:
    """Weights with a correct sha256 but with other names are refused."""
    state = {f"other.{name}": tensor for name, tensor in network.state_dict().items()}
    content = safetensors.torch.save(state)
    (folder / "weights.safetensors").write_bytes(content)
    describe(folder, lambda d: d.update(weights_sha256=hashlib.sha256(content).hexdigest()))
    with pytest.raises(MrkneeError, match="don't fit") as caught:
        load_checkpoint(folder)
    assert "head.weight" in (caught.value.found or "")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["preparation"].update(sd=51),
        lambda d: d["provenance"].update(seed=4),
        lambda d: d["provenance"].update(note="by hand"),
        lambda d: d["settings"].update(dropout=0.5),
        lambda d: d.update(decisions={"operating_points": {"acl": []}}),
        lambda d: d.pop("digest"),
        lambda d: d.update(digest=None),
    ],
)
def test_an_edited_description_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Any change in model.json is detected by its digest."""
    describe(folder, change, seal=False)
    with pytest.raises(MrkneeError, match="damaged, or was changed after training"):
        load_checkpoint(folder)


def test_whitespace_and_order_do_not_matter(folder: Path) -> None:
    """A description that another program wrote with the same contents is read."""
    file = folder / "model.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert load_checkpoint(folder).provenance == PROVENANCE


def test_weights_of_one_run_and_description_of_another_are_refused(
    folder: Path, network: Network, tmp_path: Path
) -> None:
    """Weights of another run are detected even if the networks are otherwise equal."""
    with torch.no_grad():
        network.head.bias.fill_(7)
    save_checkpoint(tmp_path / "other", network, PREPARATION, PROVENANCE)
    shutil.copy(tmp_path / "other" / "weights.safetensors", folder)
    with pytest.raises(MrkneeError, match="differ from those that were saved with the model"):
        load_checkpoint(folder)


@pytest.mark.usefixtures("unchecked")
def test_a_checkpoint_of_format_1_is_read_with_a_note(folder: Path) -> None:
    """Without a digest, the sha256 of the weights is still checked, and a note is given."""

    def as_before(description: dict[str, Any]) -> None:
        del description["digest"]
        description["format"] = 1

    describe(folder, as_before, seal=False)
    (note,) = load_checkpoint(folder).notes
    assert "without a digest" in note
    describe(folder, lambda d: d["preparation"].update(sd="nan"), seal=False)
    with pytest.raises(MrkneeError, match="sd can't be used"):
        load_checkpoint(folder)


def test_an_invalid_description_is_not_saved(folder: Path, network: Network) -> None:
    """An entry of another type is refused on saving, and the old files are kept."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(MrkneeError, match="provenance"):
        save_checkpoint(folder, network, PREPARATION, {"seed": "three"})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
