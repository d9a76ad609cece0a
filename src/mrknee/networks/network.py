"""The network: ragged batches of slices in, one logit per finding out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mrknee.errors import DataError, SettingsError
from mrknee.exams.series import MRNET_SERIES, SeriesList
from mrknee.networks.encoders import Encoder, build_encoders
from mrknee.networks.few_at_once import encode_few_at_once
from mrknee.networks.pooling import POOLINGS, Pooling, pool_exams
from mrknee.networks.settings import NetworkSettings

SLICES_AT_ONCE = {"cpu": 16, "cuda": 64}
"""Slices that go through an encoder together where no gradient is wanted, by kind of device. Their
maps are the largest thing in memory: by estimate 1 GB for 64 slices of 224 pixels in
EfficientNet-Lite0."""

SHARED = "shared"
"""The key, in place of a series' name, of the encoder that all series share."""


@dataclass(frozen=True)
class Reading:
    """The logits of some exams, and what is needed to say what they are the sum of.

    Attributes:
        logits: (exams, findings).
        weights: series -> (slices, width), the weights that the pooling gave to the slices.
        shares: (exams, series), what the features of a series are multiplied by: the number of
            series divided by how many the exam has; 0 for series that it lacks.
    """

    logits: Float[Tensor, "exams findings"]
    weights: Mapping[str, Float[Tensor, "_ width"]]
    shares: Float[Tensor, "exams series"]


class Network(nn.Module):
    """Series of slices to one logit per finding (hard parameter sharing).

    With the default settings and series it is the published network: three unshared AlexNet feature
    extractors, the mean over pixels, the maximum over slices, 3 x 256 = 768 features side by side
    (axial, coronal, sagittal), one linear layer; 7.41 million parameters for three findings.

    `forward` computes logits from slices. It is `encode`, which makes feature maps of slices, and
    `read`, which makes logits of feature maps; `contributions` then takes the logits of an exam
    apart: everything after the feature maps is linear but the weights of the slices, so each logit
    is a sum over (series, slice, cell) plus a bias. Training, explanation and export all use these.

    Args:
        settings: what the network is made of.
        findings: names of the findings, one logit each, in this order.
        weights: where the encoders' weights come from: `none` (random), `download`, `lite0`, or
            a file's path. Encoders with weights from a source start equal in all series.
        series: the series of its exams, in order.

    Attributes:
        encoders: one encoder per series, or one under the key `shared`.
        poolings: slices to exam, one per series (only `attention` has parameters).
        head: the linear layer from (exams, series * width) to (exams, findings).
        slices_at_once: slices that go through an encoder together where gradients are wanted; None
            (the default) takes all slices of a series. Set for training, see `encode`.

    Raises:
        MrkneeError: no findings, an unknown encoder, weights that can't be had or don't fit, or
            more frozen stages than the encoder has.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        findings: Sequence[str],
        weights: str = "none",
        series: SeriesList = MRNET_SERIES,
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
        self.series = series
        names = (SHARED,) if settings.shared_encoder else series.names
        built = build_encoders(settings.encoder, weights, len(names))
        self.width = built[0].width
        self.encoders = nn.ModuleDict(dict(zip(names, built, strict=True)))
        pooling = POOLINGS[settings.slice_pooling]
        self.poolings = nn.ModuleDict({name: pooling(self.width) for name in series.names})
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(len(series) * self.width, len(self.findings))
        self.slices_at_once: int | None = None
        for encoder in built:
            encoder.freeze_stages(settings.frozen_stages)
        self.train()

    @property
    def attends(self) -> bool:
        """Whether slices are weighted by attention, which contributions hold fixed."""
        return any(cast(Pooling, pooling).attends for pooling in self.poolings.values())

    def encoder(self, series: str) -> Encoder:
        """The encoder of that series."""
        encoder = self.encoders[SHARED if self.settings.shared_encoder else series]
        assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
        return encoder

    def encode(
        self, series: str, slices: Float[Tensor, "slices 1 rows cols"]
    ) -> Float[Tensor, "slices width map_rows map_cols"]:
        """The feature map of every slice of one series; slices as the preparation leaves them.

        With `slices_at_once`, nothing inside the encoder is kept for the gradients but its input:
        going backwards, each few slices are encoded again (gradient checkpointing), with the same
        random draws. Memory is then that of a few slices, whatever the batch, for one more forward
        pass; gradients are those of all slices at once, to rounding. Slices have to be independent
        of each other for that, so batch normalisation must not measure its statistics.
        """
        encoder = self.encoder(series)
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

    def forward(
        self,
        slices: Mapping[str, Float[Tensor, "_ 1 _ _"]],
        lengths: Mapping[str, Int64[Tensor, " exams"]],
    ) -> Float[Tensor, "exams findings"]:
        """One logit per exam and finding.

        Args:
            slices: by series, the prepared slices of all exams of the batch, one exam after
                another; number of slices and size may differ between series.
            lengths: by series, how many of the slices belong to each exam; 0 where an exam lacks
                the series. Best kept in the CPU's memory, where they are read.

        Returns:
            Logits, the exams in the batch's order, the findings in `self.findings`' order. An
            exam's logits depend on its own slices only (unless BatchNorm is trained).

        Raises:
            DataError: an exam without a single slice in any series.
        """
        counts = {name: lengths[name].tolist() for name in self.series.names}
        # encoders can't take empty batches
        maps = {name: self.encode(name, slices[name]) for name in counts if len(slices[name])}
        return self.read(maps, counts).logits

    def read(
        self,
        maps: Mapping[str, Float[Tensor, "_ width _ _"]],
        lengths: Mapping[str, Sequence[int]] | None = None,
        present: Float[Tensor, " series"] | None = None,
    ) -> Reading:
        """Feature maps to logits.

        Per series: the mean over pixels, then the pooling over each exam's slices. The features of
        all series stand side by side; a series that an exam lacks contributes zeros, and those of
        the others are multiplied by series / series there. The head computes the logits from that.

        Args:
            maps: by series, the feature maps of all slices of all exams, one exam after another;
                series that no exam has may be missing.
            lengths: by series, how many of the slices belong to each exam, 0 where it lacks the
                series; None if all are of one exam.
            present: with one exam, 1 for each series that counts, else 0; None counts those in
                `maps`. It is for graphs, which have no branch on a value.

        Raises:
            DataError: an exam without a single slice in any series.
        """
        names = self.series.names
        exams = 1 if lengths is None else len(lengths[names[0]])
        pooled, weights = [], {}
        for name in names:
            vectors = self.head.weight.new_zeros(exams, self.width)
            if name in maps:
                pooling = cast(Pooling, self.poolings[name])
                features = maps[name].mean(dim=(2, 3))
                if lengths is None:
                    vector, weights[name] = pooling(features)
                    vectors = vector[None]
                else:
                    vectors, weights[name] = pool_exams(pooling, features, lengths[name])
            pooled.append(vectors)
        features = torch.cat(pooled, dim=1)
        if present is not None:
            counted = present[None]
        elif lengths is None:
            counted = features.new_tensor([[float(name in maps) for name in names]])
        else:
            each = zip(*(lengths[name] for name in names), strict=True)
            there = [[float(slices > 0) for slices in exam] for exam in each]
            counted = features.new_tensor(there)
            empty = [exam for exam, counts in enumerate(there) if not any(counts)]
            if empty:
                raise DataError(
                    "an exam has no slices at all",
                    code="missing-plane",
                    expected="at least one series with slices",
                    found=f"none for exam {empty[0]} of the batch",
                )
        shares = counted * (len(self.series) / counted.sum(dim=1, keepdim=True))
        wide = shares[:, :, None].expand(-1, -1, self.width).flatten(1)
        return Reading(self.head(self.dropout(features * wide)), weights, shares)

    def contributions(
        self, maps: Mapping[str, Float[Tensor, "_ width _ _"]], reading: Reading
    ) -> dict[str, Float[Tensor, "findings _ _ _"]]:
        """What each cell of one exam's feature maps adds to each logit.

        Args:
            maps: by series, the exam's feature maps.
            reading: what `read` returned for these maps alone.

        Returns:
            By series, (findings, slices, map rows, map cols) contributions; with the head's bias
            they add up to the logits.
        """
        heads = self.head.weight.split(self.width, dim=1)
        parts = {}
        for index, name in enumerate(self.series.names):
            if name in maps:
                cells = maps[name].shape[2] * maps[name].shape[3]
                each = heads[index][:, None] * reading.weights[name] / cells
                added = torch.einsum("fsw,swrc->fsrc", each, maps[name])
                parts[name] = added * reading.shares[0, index]
        return parts

    def train(self, mode: bool = True) -> Network:
        """Training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders.values():
            assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
            encoder.keep_frozen(batchnorm=self.settings.batchnorm == "frozen")
        return self
