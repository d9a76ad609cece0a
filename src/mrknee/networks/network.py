"""The network: ragged batches of slices in, one logit per finding out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mrknee.errors import DataError, SettingsError
from mrknee.exams.exam import PLANES
from mrknee.networks.encoders import Encoder, build_encoders
from mrknee.networks.few_at_once import encode_few_at_once
from mrknee.networks.pooling import build_pooling, pool_exams
from mrknee.networks.settings import NetworkSettings

SLICES_AT_ONCE = {"cpu": 16, "cuda": 64}
"""Slices that go through an encoder together where no gradient is wanted, by kind of device. Their
maps are the largest thing in memory: by estimate 1 GB for 64 slices of 224 pixels in
EfficientNet-Lite0."""

SHARED = "shared"
"""The key, in place of a plane's name, of the encoder that all planes share."""


class Network(nn.Module):
    """Three planes of slices to one logit per finding (hard parameter sharing).

    With the default settings it is the reference network: three unshared AlexNet feature
    extractors, the mean over pixels, the maximum over slices, 3 x 256 = 768 features side by side
    (axial, coronal, sagittal), one linear layer; 7.41 million parameters for three findings.

    The way is split into `encode`, `pool` and `head`, so that an explanation or an export can walk
    it step by step. With everything after the feature map linear but the choice of slices, each
    logit is a sum over (plane, slice, pixel) plus a bias.

    Args:
        settings: what the network is made of.
        findings: names of the findings, one logit each, in this order.
        weights: where the encoders' weights come from: `none` (random), `download`, `lite0`, or
            a file's path. Encoders with weights from a source start equal in all planes.

    Attributes:
        encoders: one encoder a plane, or one under the key `shared`.
        poolings: slices to exam, one a plane (only `attention` has parameters).
        head: the linear layer from (exams, 3 * width) to (exams, findings).
        slices_at_once: slices that go through an encoder together where gradients are wanted; None
            (the default) takes all slices of a plane. Set for training, see `encode`.

    Raises:
        MrkneeError: no findings, an unknown encoder, weights that can't be had or don't fit, or
            more frozen stages than the encoder has.
    """

    def __init__(
        self, settings: NetworkSettings, findings: Sequence[str], weights: str = "none"
    ) -> None:
        super().__init__()
        if not findings:
            raise SettingsError(
                "a network needs a finding to read",
                code="no-findings",
                expected="at least one finding",
            )
        self.settings = settings
        self.findings = tuple(findings)
        names = (SHARED,) if settings.shared_encoder else tuple(PLANES)
        built = build_encoders(settings.encoder, weights, len(names))
        self.width = built[0].width
        self.encoders = nn.ModuleDict(dict(zip(names, built, strict=True)))
        self.poolings = nn.ModuleDict(
            {plane: build_pooling(settings.slice_pooling, self.width) for plane in PLANES}
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(len(PLANES) * self.width, len(self.findings))
        self.slices_at_once: int | None = None
        for encoder in built:
            encoder.freeze_stages(settings.frozen_stages)
        self.train()

    def encoder(self, plane: str) -> Encoder:
        """The encoder of that plane."""
        encoder = self.encoders[SHARED if self.settings.shared_encoder else plane]
        assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
        return encoder

    def encode(
        self, plane: str, slices: Float[Tensor, "slices 1 rows cols"]
    ) -> Float[Tensor, "slices width map_rows map_cols"]:
        """The feature map of every slice of one plane; slices as the preparation leaves them.

        With `slices_at_once`, nothing inside the encoder is kept for the gradients but its input:
        going backwards, each few slices are encoded again (gradient checkpointing), with the same
        random draws. Memory is then that of a few slices, whatever the batch, for one more forward
        pass; gradients are those of all slices at once, to rounding. Slices have to be independent
        of each other for that, so batch normalisation must not measure its statistics.
        """
        encoder = self.encoder(plane)
        if torch.compiler.is_exporting():
            return cast(Tensor, encoder(slices))
        if not torch.is_grad_enabled():
            few = SLICES_AT_ONCE.get(slices.device.type, len(slices))
            return torch.cat([encoder(part) for part in slices.split(few)])
        if self.slices_at_once is None:
            return cast(Tensor, encoder(slices))
        return encode_few_at_once(encoder, slices, self.slices_at_once)

    def refuse_size(self, side: int) -> None:
        """Refuses pictures that an encoder can't take, before any exam is read.

        Args:
            side: edge of the pictures, in pixels: the preparation's crop.

        Raises:
            SettingsError: the encoder can't encode a picture of that size.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                encoder = next(iter(self.encoders.values()))  # all are of one kind
                encoder(next(encoder.parameters()).new_zeros(1, 1, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:  # timm asserts sizes
            raise SettingsError(
                "the encoder can't take pictures of this size",
                code="encoder",
                expected=f"a larger preparation.crop, or another encoder than "
                f"{self.settings.encoder}",
                found=f"preparation.crop {side}: {str(error)[:200] or type(error).__name__}",
            ) from None
        finally:
            self.train(training)

    def pool(
        self,
        plane: str,
        maps: Float[Tensor, "slices width map_rows map_cols"],
        lengths: Sequence[int],
    ) -> Float[Tensor, "exams width"]:
        """Feature maps to exams: the mean over pixels, then the pooling over each exam's slices.

        Args:
            plane: whose pooling to use.
            maps: feature maps of all slices of all exams, one exam after another.
            lengths: how many slices each exam has; an exam with 0 becomes a row of zeros.
        """
        return pool_exams(self.poolings[plane], maps.mean(dim=(2, 3)), lengths)

    def represent(
        self,
        slices: Mapping[str, Float[Tensor, "_ 1 _ _"]],
        lengths: Mapping[str, Int64[Tensor, " exams"]],
    ) -> Float[Tensor, "exams features"]:
        """The representation all findings share: the planes' features side by side.

        A plane that an exam lacks contributes zeros, and the features of the planes that are there
        are multiplied by 3 / (planes there): the logits then pool over the planes that are there,
        and a complete exam is multiplied by 1.

        Raises:
            MrkneeError: an exam without a single slice in any plane.
        """
        counts = {plane: lengths[plane].tolist() for plane in PLANES}
        present = [sum(map(bool, exam)) for exam in zip(*counts.values(), strict=True)]
        if 0 in present:
            raise DataError(
                "an exam has no slices at all",
                code="missing-plane",
                expected="at least one plane with slices",
                found=f"none for exam {present.index(0)} of the batch",
            )
        pooled = []
        for plane in PLANES:
            if len(slices[plane]):
                pooled.append(self.pool(plane, self.encode(plane, slices[plane]), counts[plane]))
            else:  # no exam of the batch has this plane, and encoders can't take empty batches
                pooled.append(self.head.weight.new_zeros(len(present), self.width))
        features = torch.cat(pooled, dim=1)
        return features * (len(PLANES) / features.new_tensor(present))[:, None]

    def forward(
        self,
        slices: Mapping[str, Float[Tensor, "_ 1 _ _"]],
        lengths: Mapping[str, Int64[Tensor, " exams"]],
    ) -> Float[Tensor, "exams findings"]:
        """One logit per exam and finding.

        Args:
            slices: by plane, the prepared slices of all exams of the batch, one exam after
                another; number of slices and size may differ between planes.
            lengths: by plane, how many of the slices belong to each exam; 0 where an exam lacks
                the plane. Best kept in the CPU's memory, where they are read.

        Returns:
            Logits, the exams in the batch's order, the findings in `self.findings`' order. An
            exam's logits depend on its own slices only (unless BatchNorm is trained).

        Raises:
            MrkneeError: an exam without a single slice in any plane.
        """
        logits: Tensor = self.head(self.dropout(self.represent(slices, lengths)))
        return logits

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders.values():
            assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
            encoder.keep_frozen(batchnorm=self.settings.batchnorm == "frozen")
        return self
