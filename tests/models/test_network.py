from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES
from mrknee.models.evidence import EVIDENCE_POOLINGS
from mrknee.models.network import Network
from mrknee.models.pooling import MaxPooling, pool_exams
from mrknee.models.settings import BatchNorm, NetworkSettings, SlicePooling
from tests.models.examples import FINDINGS, one_exam, random_batch

POOLINGS: tuple[SlicePooling, ...] = ("max", "mean", "attention")


def build(settings: NetworkSettings, seed: int = 0, findings: Sequence[str] = FINDINGS) -> Network:
    """Returns a network with seeded random weights."""
    torch.manual_seed(seed)
    return Network(settings, findings)


def train_a_step(network: Network, seed: int = 0) -> None:
    """Takes a training step that is large enough to change all trainable weights."""
    slices, lengths = random_batch([(2, 3, 2), (1, 2, 4)], seed)
    optimiser = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.1)
    logits = network.train()(slices, lengths)
    torch.autograd.backward(nn.functional.binary_cross_entropy_with_logits(logits, logits * 0 + 1))
    optimiser.step()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "test_convnext"])
def test_an_exams_logits_dont_depend_on_its_neighbours(
    encoder: str, shared: bool, pooling: SlicePooling
) -> None:
    """An exam's logits are the same in a batch and alone to 1e-5, over random slice counts."""
    draw = random.Random(f"{encoder} {shared} {pooling}")  # noqa: S311 - a test's draw
    counts = [(draw.randint(1, 9), draw.randint(1, 9), draw.randint(1, 9)) for _ in range(4)]
    network = build(NetworkSettings(encoder=encoder, shared_encoder=shared, slice_pooling=pooling))
    slices, lengths = random_batch(counts, seed=draw.randrange(1000))
    with torch.no_grad():
        together = network.train()(slices, lengths)  # frozen BatchNorm: training mode too
        for index in range(len(counts)):
            alone = network(*one_exam(slices, lengths, index))
            torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)
    assert together.std() > 1e-3, "logits that are all alike would prove little"


def test_the_reference_doesnt_depend_on_neighbours() -> None:
    """AlexNet's logits for MRNet-like slice counts are the same in a batch and alone to 1e-5."""
    network = build(NetworkSettings())
    slices, lengths = random_batch([(17, 23, 31), (1, 40, 2)])
    with torch.no_grad():
        together = network(slices, lengths)
        for index in range(2):
            alone = network(*one_exam(slices, lengths, index))
            torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("findings", [("acl",), FINDINGS, tuple(f"f{k}" for k in range(12))])
def test_any_number_of_findings(findings: tuple[str, ...]) -> None:
    """There is one logit per finding, for 1 or 12 findings, on the same shared representation."""
    network = build(NetworkSettings(encoder="test_resnet"), findings=findings)
    assert network.findings == findings
    assert network(*random_batch([(1, 2, 1), (2, 1, 1)])).shape == (2, len(findings))


def test_no_findings_are_refused() -> None:
    """A network without findings is refused."""
    with pytest.raises(MrkneeError, match="finding"):
        Network(NetworkSettings(encoder="test_resnet"), [])


def test_forward_equals_its_steps() -> None:
    """Encoding, pooling and head, computed one by one, give the result of forward."""
    network = build(NetworkSettings(encoder="test_resnet")).eval()
    slices, lengths = random_batch([(3, 2, 1), (1, 1, 4)])
    maps = {str(p): network.encode(p, slices[p]) for p in PLANES}
    reading = network.read(maps, {p: lengths[p].tolist() for p in PLANES})
    assert torch.equal(reading.logits, network(slices, lengths))
    pooled = []
    for plane in PLANES:
        weighted = reading.weights[plane] * maps[plane].mean(dim=(2, 3))
        pooled.append(torch.stack([w.sum(0) for w in weighted.split(lengths[plane].tolist())]))
    torch.testing.assert_close(network.head(torch.cat(pooled, 1)), reading.logits)


def represented(
    network: Network, slices: dict[str, Tensor], lengths: dict[str, Tensor]
) -> Float[Tensor, "exams 3 width"]:
    """Returns the input of the head."""
    given: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    network(slices, lengths)
    handle.remove()
    return given[0].reshape(-1, 3, network.width)


def test_planes_come_in_the_references_order() -> None:
    """The representation is axial, coronal, sagittal, one third each, from its plane only."""
    network = build(NetworkSettings(encoder="test_resnet")).eval()
    slices, lengths = random_batch([(2, 2, 2)])
    before = represented(network, slices, lengths)
    slices["coronal"] = slices["coronal"] + 1
    after = represented(network, slices, lengths)
    assert [bool((before[:, k] != after[:, k]).any()) for k in range(3)] == [False, True, False]


class TestMissingPlane:
    """Exams with missing planes use the present planes."""

    def test_the_present_planes_are_scaled_up(self) -> None:
        """Features of a missing plane are zero, and the others are multiplied by 3/2."""
        network = build(NetworkSettings(encoder="test_resnet")).eval()
        slices, lengths = random_batch([(2, 0, 3), (2, 3, 1)])
        found = represented(network, slices, lengths)
        features = network.encode("axial", slices["axial"]).mean(dim=(2, 3))
        axial, _ = pool_exams(MaxPooling(network.width), features, [2, 2])
        assert not found[0, 1].any()
        torch.testing.assert_close(found[0, 0], 1.5 * axial[0])
        assert torch.equal(found[1, 0], axial[1]), "complete exams stay the reference exactly"

    @pytest.mark.parametrize("pooling", [*POOLINGS, *EVIDENCE_POOLINGS])
    def test_one_plane_alone_is_enough(self, pooling: SlicePooling) -> None:
        """With a single plane in the complete batch, logits are finite and gradients flow."""
        network = build(NetworkSettings(encoder="test_resnet", slice_pooling=pooling))
        logits = network(*random_batch([(0, 0, 2), (0, 0, 1)]))
        torch.autograd.backward(logits.sum())
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert bool(logits.isfinite().all())
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert all(p.grad is None for p in network.encoder("axial").parameters())
        assert any(p.grad is not None for p in network.encoder("sagittal").parameters())

    def test_it_is_the_same_alone_and_in_a_batch(self) -> None:
        """Missing planes of other exams in the batch have no effect."""
        network = build(NetworkSettings(encoder="test_resnet"))
        slices, lengths = random_batch([(2, 0, 3), (2, 3, 1), (0, 0, 4)])
        together = network(slices, lengths)
        for index in range(3):
            alone = network(*one_exam(slices, lengths, index))
            torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)

    def test_an_exam_of_nothing_is_refused(self) -> None:
        """An exam without slices raises, with its position in the batch."""
        network = build(NetworkSettings(encoder="test_resnet"))
        with pytest.raises(MrkneeError, match="exam 1 of the batch"):
            network(*random_batch([(2, 1, 3), (0, 0, 0)]))


class TestSeeds:
    """Random weights depend only on torch's seed."""

    @pytest.mark.parametrize("encoder", ["alexnet", "test_vit", "test_resnet"])
    def test_the_same_seed_gives_the_same_weights(self, encoder: str) -> None:
        """Networks are equal bit for bit if and only if their seeds are equal."""
        settings = NetworkSettings(encoder=encoder, slice_pooling="attention")
        first, second, other = (build(settings, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["head.weight"], other["head.weight"])

    @pytest.mark.parametrize("encoder", ["alexnet", "test_vit"])
    def test_random_encoders_differ_between_planes(self, encoder: str) -> None:
        """Without pretrained weights, the encoders of the planes have different random weights."""
        network = build(NetworkSettings(encoder=encoder))
        axial, coronal = network.encoder("axial"), network.encoder("coronal")
        pairs = zip(axial.parameters(), coronal.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)

    def test_a_shared_encoder_is_one(self) -> None:
        """A shared encoder is stored once and used for all planes."""
        network = build(NetworkSettings(encoder="test_resnet", shared_encoder=True))
        assert network.encoder("axial") is network.encoder("sagittal")
        alone = build(NetworkSettings(encoder="test_resnet"))
        ratio = [sum(p.numel() for p in n.encoders.parameters()) for n in (alone, network)]
        assert ratio[0] == 3 * ratio[1]


class TestFrozen:
    """Frozen parts don't change while the others are trained."""

    @pytest.mark.parametrize(("encoder", "stages"), [("alexnet", 5), ("test_resnet", 5)])
    @pytest.mark.parametrize("frozen", [0, 2, 5, -2, -5])
    def test_frozen_stages_keep_their_weights(self, encoder: str, stages: int, frozen: int) -> None:
        """A training step changes weights in all stages that aren't frozen, and in no others.

        A negative number counts the trained stages.
        """
        network = build(NetworkSettings(encoder=encoder, frozen_stages=frozen))
        body = network.encoder("axial")
        assert body.stages == stages
        before = {name: p.detach().clone() for name, p in body.body.named_parameters()}
        head = network.head.weight.detach().clone()
        train_a_step(network)
        moved = {
            body.stage_of[name]
            for name, p in body.body.named_parameters()
            if not torch.equal(p, before[name])
        }
        assert moved == set(range(stages)[frozen:])
        assert not torch.equal(head, network.head.weight)

    def test_frozen_stages_stay_in_evaluation_mode(self) -> None:
        """With trained BatchNorm, the running statistics of frozen stages still don't change."""
        settings = NetworkSettings(encoder="test_resnet", frozen_stages=2, batchnorm="trained")
        network = build(settings)
        before = running_statistics(network)
        train_a_step(network)
        after = running_statistics(network)
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert changed
        assert not [name for name in changed if "body.conv1" in name or "body.layer1" in name]
        assert any("body.layer2" in name for name in changed)

    @pytest.mark.parametrize("batchnorm", ["frozen", "trained"])
    def test_batchnorm(self, batchnorm: BatchNorm) -> None:
        """If frozen, only the affine weights change; if trained, the running statistics too."""
        network = build(NetworkSettings(encoder="test_efficientnet", batchnorm=batchnorm))
        affine = network.encoder("axial").get_parameter("body.bn1.weight")
        before, weight = running_statistics(network), affine.detach().clone()
        train_a_step(network)
        after = running_statistics(network)
        moved = any(not torch.equal(before[name], after[name]) for name in before)
        assert moved == (batchnorm == "trained")
        assert not torch.equal(affine, weight)

    def test_evaluation_mode_and_back(self) -> None:
        """After evaluation and training mode, frozen parts are still frozen, others trainable."""
        network = build(NetworkSettings(encoder="test_resnet", frozen_stages=1, dropout=0.5))
        network.eval().train()
        assert network.dropout.training
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert not any(norm.training for norm in norms)

    @pytest.mark.parametrize("frozen", [6, -6])
    def test_too_many_frozen_stages_are_refused(self, frozen: int) -> None:
        """Freezing more stages than exist raises, with their number."""
        with pytest.raises(MrkneeError, match="-5 to 5"):
            Network(NetworkSettings(frozen_stages=frozen), FINDINGS)


def running_statistics(network: Network) -> dict[str, Tensor]:
    """Copies of all running means and variances."""
    return {n: b.clone() for n, b in network.named_buffers() if "running" in n}


def test_dropout_only_while_training() -> None:
    """Dropout changes logits between passes in training mode only."""
    network = build(NetworkSettings(encoder="test_resnet", dropout=0.5))
    batch = random_batch([(2, 2, 2)])
    assert not torch.equal(network(*batch), network(*batch))
    network.eval()
    assert torch.equal(network(*batch), network(*batch))


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_vit", "alexnet"])
def test_chunks_give_the_same_gradients(encoder: str) -> None:
    """Logits and all gradients equal those of all slices at once, to 1e-5 of the largest."""
    gradients, logits = [], []
    for few in (None, 2):
        network = build(NetworkSettings(encoder=encoder)).train()
        network.slices_at_once = few
        slices, lengths = random_batch([(2, 3, 5), (1, 4, 2)])
        logits.append(network(slices, lengths))
        logits[-1].square().sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    for name, whole in gradients[0].items():
        few_gradient = gradients[1][name]
        assert whole is not None and few_gradient is not None, name  # noqa: PT018  # for mypy
        torch.testing.assert_close(
            few_gradient, whole, rtol=0, atol=1e-5 * max(1.0, float(whole.abs().max()))
        )


def test_partly_frozen_encoders_give_the_same_maps_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their slices pass in several calls on a CPU, with gradients and without."""
    network = build(NetworkSettings(encoder="test_efficientnet", frozen_stages=2))
    encoder = network.encoder("axial")
    assert encoder.grouped
    assert encoder.partly_frozen
    slices = random_batch([(5, 1, 1)])[0]["axial"]
    pixels = slices.shape[2] * slices.shape[3]
    monkeypatch.setattr("mrknee.models.network.PARTLY_FROZEN_PIXELS_AT_ONCE", 2 * pixels + 1)
    sizes: list[int] = []
    hook = encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = network.encode("axial", slices)
    assert sizes == [2, 2, 1]
    hook.remove()
    wanted = encoder(slices)
    weights = [one for one in encoder.parameters() if one.requires_grad]
    pairs = zip(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(wanted.square().sum(), weights),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1, float(other.abs().max())))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(network.encode("axial", slices), wanted, rtol=0, atol=1e-5)


def test_chunks_repeat_the_random_numbers() -> None:
    """An encoder with dropout drops the same units in the second encoding."""
    gradients = []
    for checkpointed in (True, False):
        network = build(NetworkSettings(encoder="alexnet", shared_encoder=True)).train()
        encoder = network.encoder("axial")
        encoder.body.append(nn.Dropout(0.5))  # type: ignore[operator]  # a Sequential
        network.slices_at_once = 2
        slices, _ = random_batch([(5, 1, 1)])
        torch.manual_seed(1)
        if checkpointed:
            maps = network.encode("axial", slices["axial"])
        else:
            maps = torch.cat([encoder(part) for part in slices["axial"].split(2)])
        torch.manual_seed(2)  # as other parts of the network draw before the gradients
        maps.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_chunks_store_only_their_input() -> None:
    """With ten times the slices, the stored tensors grow by the additional input only."""
    kept = []
    network = build(NetworkSettings(encoder="test_efficientnet", shared_encoder=True)).train()
    network.slices_at_once = 2
    for count in (2, 20):
        slices, _ = random_batch([(count, 1, 1)])
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            maps = network.encode("axial", slices["axial"])
        maps.sum().backward()
        kept.append(sum(sizes.values()))
    assert kept[1] <= kept[0] + slices["axial"].nbytes + maps.nbytes
