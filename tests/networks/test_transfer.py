"""Starting with a trained network's weights: what has the same meaning is taken over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError, SettingsError
from mrknee.exams import MRNET_SERIES, Exam, Series, SeriesList
from mrknee.networks.checkpoint import save_checkpoint
from mrknee.networks.network import Network
from mrknee.networks.settings import NetworkSettings, SlicePooling
from mrknee.networks.transfer import run_weights, take_over
from mrknee.tensors.batches import frame_exam, join
from mrknee.tensors.preparation import Preparation

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
    """A network of random weights."""
    torch.manual_seed(seed)
    settings = NetworkSettings(encoder="test_resnet", shared_encoder=shared, slice_pooling=pooling)
    return Network(settings, findings, series=series).eval()


def saved(network: Network, folder: Path) -> Path:
    """The network as a run would keep it."""
    save_checkpoint(folder / "best", network, PREPARATION.to_dict(), {})
    return folder


def logits(network: Network, exam: Exam) -> dict[str, float]:
    """The exam's logits by finding."""
    batch = join([frame_exam(exam, PREPARATION)])
    with torch.no_grad():
        found = network(batch.prepared(PREPARATION), batch.lengths)[0]
    return dict(zip(network.findings, found.tolist(), strict=True))


def noise(series: SeriesList) -> Exam:
    """An exam with all of the series."""
    rng = np.random.default_rng(0)
    stacks = {name: rng.integers(0, 256, (3, 48, 48)).astype(np.uint8) for name in series.names}
    return Exam("0001", stacks, series=series)


@pytest.mark.parametrize("pooling", ["max", "attention"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_same_network_is_taken_over_whole(
    tmp_path: Path, pooling: SlicePooling, shared: bool
) -> None:
    """Every weight; nothing is drawn anew."""
    old = make(1, pooling=pooling, shared=shared)
    new = make(2, pooling=pooling, shared=shared)
    transfer = take_over(new, saved(old, tmp_path) / "best")
    assert transfer.drawn == ()
    for name, tensor in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor), name


def test_findings_in_common_keep_their_logits(tmp_path: Path) -> None:
    """Whatever their places; a finding that is new has a head of its own."""
    old = make(1)
    new = make(2, ["acl", "effusion", "abnormal"])
    transfer = take_over(new, saved(old, tmp_path) / "best")
    exam = noise(MRNET_SERIES)
    before, after = logits(old, exam), logits(new, exam)
    for finding in ("abnormal", "acl"):
        assert after[finding] == pytest.approx(before[finding], abs=1e-5)
    assert transfer.drawn == ("head of effusion",)
    assert "drawn anew: head of effusion" in transfer.text()


def test_other_series_take_the_encoder_of_their_plane(tmp_path: Path) -> None:
    """sag_t2 from sagittal, cor_t1 from coronal; the head only for the series of the same name."""
    old, new = make(1), make(2, series=MORE)
    drawn = new.head.weight.detach().clone()
    transfer = take_over(new, saved(old, tmp_path) / "best")
    for name, origin in (("sag_t2", "sagittal"), ("sagittal", "sagittal"), ("cor_t1", "coronal")):
        for one, other in zip(
            new.encoder(name).parameters(), old.encoder(origin).parameters(), strict=True
        ):
            assert torch.equal(one, other)
    width = old.width
    assert torch.equal(new.head.weight[:, width : 2 * width], old.head.weight[:, 2 * width :])
    assert torch.equal(new.head.weight[:, :width], drawn[:, :width])
    assert "encoder sag_t2 from sagittal" in transfer.taken
    assert "head of acl for sag_t2, cor_t1" in transfer.drawn


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_shared_and_single_encoders_start_each_other(
    tmp_path: Path, before: bool, after: bool
) -> None:
    """A shared one starts all; a single one's first series starts the shared one."""
    old, new = make(1, shared=before), make(2, shared=after)
    take_over(new, saved(old, tmp_path) / "best")
    expected = dict(old.encoder("axial").named_parameters())
    for name in ("axial", "sagittal"):
        if before or (after and name == "axial"):
            for key, tensor in new.encoder(name).named_parameters():
                assert torch.equal(tensor, expected[key])


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    """With the setting that would fit, before anything is changed."""
    folder = saved(make(1), tmp_path)
    new = Network(NetworkSettings(encoder="test_vit"), ["acl"])
    with pytest.raises(SettingsError, match="another encoder") as error:
        take_over(new, folder / "best")
    assert "test_resnet" in str(error.value)


def test_a_run_s_best_epoch_is_meant(tmp_path: Path) -> None:
    """`run:RUN` is its best epoch, `run:RUN/last` what it names; other sources are no run."""
    saved(make(1), tmp_path)
    assert run_weights(f"run:{tmp_path}") == tmp_path / "best"
    assert run_weights(f"run:{tmp_path / 'best'}") == tmp_path / "best"
    assert run_weights("download") is None
    with pytest.raises(MrkneeError, match=r"model\.json"):
        take_over(make(2), tmp_path / "nothing")
