"""Transfer of weights from a trained network to corresponding parts of a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError, SettingsError
from mrknee.exams import MRNET_SERIES, Exam, Series, SeriesList
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings, SlicePooling
from mrknee.models.transfer import run_weights, transfer_weights
from mrknee.transforms.batches import frame_exam, join
from mrknee.transforms.preparation import Preparation

PREPARATION = Preparation(size=48, crop=48)
MORE = SeriesList(
    [
        Series("sag_t2", "sagittal", "T2"),
        Series("sagittal", "sagittal"),
        Series("cor_t1", "coronal", "T1"),
    ]
)


def make(
    seed: int,
    findings: Sequence[str] = ("abnormal", "acl", "meniscus"),
    series: SeriesList = MRNET_SERIES,
    *,
    pooling: SlicePooling = "max",
    shared: bool = False,
) -> Network:
    """Returns a network with random weights."""
    torch.manual_seed(seed)
    settings = NetworkSettings(encoder="test_resnet", shared_encoder=shared, slice_pooling=pooling)
    return Network(settings, findings, series=series).eval()


def saved(network: Network, folder: Path) -> Path:
    """Saves the network as a run does."""
    save_checkpoint(folder / "best", network, PREPARATION.to_dict(), {})
    return folder


def logits(network: Network, exam: Exam) -> dict[str, float]:
    """Returns the logits of an exam: finding -> logit."""
    batch = join([frame_exam(exam, PREPARATION)])
    with torch.no_grad():
        found = network(batch.prepared(PREPARATION), batch.lengths)[0]
    return dict(zip(network.findings, found.tolist(), strict=True))


def noise(series: SeriesList) -> Exam:
    """Returns an exam of noise with all series."""
    rng = np.random.default_rng(0)
    stacks = {name: rng.integers(0, 256, (3, 48, 48)).astype(np.uint8) for name in series.names}
    return Exam("0001", stacks, series=series)


@pytest.mark.parametrize("pooling", ["max", "attention"])
@pytest.mark.parametrize("shared", [False, True])
def test_all_weights_of_an_equal_network_are_transferred(
    tmp_path: Path, pooling: SlicePooling, shared: bool
) -> None:
    """Every weight is transferred if findings and series are equal."""
    old = make(1, pooling=pooling, shared=shared)
    new = make(2, pooling=pooling, shared=shared)
    transfer = transfer_weights(new, saved(old, tmp_path) / "best")
    assert transfer.random == ()
    for name, tensor in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor), name


def test_findings_in_common_keep_their_logits(tmp_path: Path) -> None:
    """Common findings keep their logits in any order; a new finding has random weights."""
    old = make(1)
    new = make(2, ["acl", "effusion", "abnormal"])
    transfer = transfer_weights(new, saved(old, tmp_path) / "best")
    exam = noise(MRNET_SERIES)
    before, after = logits(old, exam), logits(new, exam)
    for finding in ("abnormal", "acl"):
        assert after[finding] == pytest.approx(before[finding], abs=1e-5)
    assert transfer.random == ("head of effusion",)
    assert "randomly initialised: head of effusion" in transfer.text()


def test_other_series_get_the_encoder_of_their_plane(tmp_path: Path) -> None:
    """Encoders are transferred by plane, the head only for series of the same name."""
    old, new = make(1), make(2, series=MORE)
    drawn = new.head.weight.detach().clone()
    transfer = transfer_weights(new, saved(old, tmp_path) / "best")
    for name, origin in (("sag_t2", "sagittal"), ("sagittal", "sagittal"), ("cor_t1", "coronal")):
        for one, other in zip(
            new.encoder(name).parameters(), old.encoder(origin).parameters(), strict=True
        ):
            assert torch.equal(one, other)
    width = old.width
    assert torch.equal(new.head.weight[:, width : 2 * width], old.head.weight[:, 2 * width :])
    assert torch.equal(new.head.weight[:, :width], drawn[:, :width])
    assert "encoder sag_t2 from sagittal" in transfer.transferred
    assert "head of acl for sag_t2, cor_t1" in transfer.random


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_shared_and_separate_encoders_are_transferred_to_each_other(
    tmp_path: Path, before: bool, after: bool
) -> None:
    """A shared encoder initialises all; that of the first series initialises a shared one."""
    old, new = make(1, shared=before), make(2, shared=after)
    transfer_weights(new, saved(old, tmp_path) / "best")
    expected = dict(old.encoder("axial").named_parameters())
    for name in ("axial", "sagittal"):
        if before or (after and name == "axial"):
            for key, tensor in new.encoder(name).named_parameters():
                assert torch.equal(tensor, expected[key])


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    """The error names the suitable setting, and nothing is changed before."""
    folder = saved(make(1), tmp_path)
    new = Network(NetworkSettings(encoder="test_vit"), ["acl"])
    with pytest.raises(SettingsError, match="another encoder") as error:
        transfer_weights(new, folder / "best")
    assert "test_resnet" in str(error.value)


def test_a_run_names_its_best_epoch(tmp_path: Path) -> None:
    """`run:RUN` is the best epoch, `run:RUN/last` that folder; other sources aren't runs."""
    saved(make(1), tmp_path)
    assert run_weights(f"run:{tmp_path}") == tmp_path / "best"
    assert run_weights(f"run:{tmp_path / 'best'}") == tmp_path / "best"
    assert run_weights("download") is None
    with pytest.raises(MrkneeError, match=r"model\.json"):
        transfer_weights(make(2), tmp_path / "nothing")
