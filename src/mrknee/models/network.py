"""Network: computes one logit per finding from ragged batches of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from mrknee.errors import DataError, ModelError, SettingsError
from mrknee.exams.series import MRNET_SERIES, SeriesList
from mrknee.models.chunked_encoding import encode_in_chunks
from mrknee.models.encoders import Encoder, build_encoders
from mrknee.models.evidence import EVIDENCE_POOLINGS, EvidencePooling
from mrknee.models.neck import Neck
from mrknee.models.pooling import POOLINGS, Pooling, crop_weights, pool_exams
from mrknee.models.settings import NetworkSettings
from mrknee.models.slice_transformer import TOKEN, SliceTransformer

SLICES_AT_ONCE = {"cpu": 16, "cuda": 64}
"""Slices per encoder call without gradients, per type of device. The feature maps take most of the
memory: an estimated 1 GB for 64 slices of 224 pixels in EfficientNet-Lite0."""

GROUPED_SLICES_AT_ONCE = 4
"""The same on a CPU for encoders with grouped convolutions. These do little arithmetic per value,
and are fast as long as the maps fit into the processor's cache: EfficientNet-Lite0 takes 0.68 of
the time of 16 slices of 224 pixels at once, ResNet-18 1.2 times (experiments/LOG.md)."""

PARTLY_FROZEN_PIXELS_AT_ONCE = 400_000
"""Pixels per call in training on a CPU for such encoders if their first stages are frozen: 8 slices
of 224 pixels, 24 of 128. All activations of trained stages are kept, as without chunks; it takes
0.87 of the time (LOG)."""

SHARED = "shared"
"""Key of the encoder that all series share, in place of the name of a series."""


@dataclass(frozen=True)
class Reading:
    """The logits of some exams, and what is needed to decompose them.

    Attributes:
        logits: (exams, findings).
        weights: series -> (slices, width), weights of the slices in the pooling of features; empty
            if scores are pooled.
        shares: (exams, series), factors of each series: the number of series divided by the number
            that the exam has; 0 for missing series.
        contributions: series -> (slices, findings, map rows, map cols), contribution of each cell
            if scores are pooled; else empty.
    """

    logits: Float[Tensor, "exams findings"]
    weights: Mapping[str, Float[Tensor, "_ width"]]
    shares: Float[Tensor, "exams series"]
    contributions: Mapping[str, Float[Tensor, "_ findings _ _"]]


def slices_per_call(encoder: Encoder, device: str, slices: int) -> int:
    """Returns how many slices an encoder gets per call without gradients.

    Args:
        encoder: the encoder.
        device: type of device, such as `cpu`.
        slices: number of slices of all calls together, at least 1.
    """
    if device == "cpu" and encoder.grouped:
        return min(GROUPED_SLICES_AT_ONCE, slices)
    return min(SLICES_AT_ONCE.get(device, slices), slices)


class Network(nn.Module):
    """Multi-task network: slices of several series to one logit per finding.

    With the default settings and series it is the published network: three unshared AlexNet feature
    extractors, the mean over pixels, the maximum over slices, 3 x 256 = 768 concatenated features
    (axial, coronal, sagittal), one linear layer; 7.41 million parameters for three findings.

    `forward` computes logits from slices, in two steps: `encode` computes feature maps from slices,
    and `read` logits from feature maps: either the features are averaged over cells, pooled over
    slices, and the head is applied to the result, or the head is applied to each cell and the
    scores are pooled (`mrknee.models.evidence`). `contributions` decomposes the logits of an exam:
    given the weights of slices or cells, everything after the feature maps is linear, so each logit
    is a sum over (series, slice, cell) plus a bias. Training, explanation and export all use these
    methods. A transformer over slices (`mrknee.models.slice_transformer`) has no such sum.

    Args:
        settings: architecture of the network.
        findings: names of the findings, one logit each, in this order.
        weights: source of the encoders' weights: `none` (random), `download`, `lite0`, or a file.
            Pretrained encoders are initially equal for all series.
        series: the series of the exams, in order.

    Attributes:
        encoders: one encoder per series, or one under the key `shared`.
        poolings: pooling of features over slices, one per series (only `attention` has parameters);
            empty if scores are pooled.
        evidence: pooling of scores; None otherwise.
        transformer: transformer over slices; None otherwise.
        width: channels of an encoder's feature map.
        features: features per slice: `width`, times the number of crops if there are any.
        head: linear layer from (series * features) values, or from the transformer's token, to
            (findings) logits or scores.
        slices_at_once: slices per encoder call with gradients; None (default) encodes all slices of
            a series at once. Set for training, see `encode`.

    Raises:
        MrkneeError: there are no findings, the encoder is unknown, the weights are unavailable or
            don't fit, or more stages are frozen than the encoder has.
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
                "a network needs at least one finding",
                code="no-findings",
                expected="at least one finding",
            )
        self.settings = settings
        self.findings = tuple(findings)
        self.series = series
        names = (SHARED,) if settings.shared_encoder else series.names
        built = build_encoders(
            settings.encoder,
            weights,
            len(names),
            settings.feature_maps,
            settings.channels,
            settings.drop_path,
            pyramid=settings.detail_crops > 0,
            linear=settings.activation == "none",
        )
        self.width = built[0].width
        self.features = self.width * max(settings.detail_crops, 1)
        self.encoders = nn.ModuleDict(dict(zip(names, built, strict=True)))
        pooling = POOLINGS.get(settings.slice_pooling)
        self.poolings = nn.ModuleDict(
            {name: pooling(self.features) for name in series.names} if pooling else {}
        )
        self.evidence: EvidencePooling | None = None
        self.transformer: SliceTransformer | None = None
        if settings.slice_pooling == "transformer":
            self.transformer = SliceTransformer(self.width, len(series), settings.dropout)
        elif pooling is None:
            evidence = EVIDENCE_POOLINGS[settings.slice_pooling]
            self.evidence = evidence(self.width, len(self.findings), len(series))
        self.dropout = nn.Dropout(settings.dropout)
        inputs = len(series) * self.features if self.transformer is None else TOKEN
        self.head = nn.Linear(inputs, len(self.findings))
        self.slices_at_once: int | None = None
        for encoder in built:
            encoder.freeze_stages(settings.frozen_stages)
        self.train()

    @property
    def attends(self) -> bool:
        """Whether weights depend on the features; `contributions` treats them as constant."""
        return self.evidence is not None or any(
            cast(Pooling, pooling).attends for pooling in self.poolings.values()
        )

    @property
    def explainable(self) -> bool:
        """Whether `contributions` can decompose the logits."""
        return self.transformer is None

    def encoder(self, series: str) -> Encoder:
        """Returns the encoder of a series."""
        encoder = self.encoders[SHARED if self.settings.shared_encoder else series]
        assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
        return encoder

    def encode(
        self, series: str, slices: Float[Tensor, "slices channels rows cols"]
    ) -> Float[Tensor, "slices width map_rows map_cols"]:
        """Computes the feature maps of the normalised slices of one series.

        With `slices_at_once`, only the encoder's input is stored for the gradients: in the backward
        pass each chunk of slices is encoded again (gradient checkpointing), with the same random
        numbers. This limits memory to that of one chunk, whatever the batch, for one additional
        forward pass; gradients equal those of all slices at once, up to rounding. It requires that
        slices are independent of each other, so batch normalisation must not use batch statistics.
        The body of a completely frozen encoder needs no gradients, so nothing of it is stored.
        """
        encoder = self.encoder(series)
        if torch.compiler.is_exporting():
            return cast(Tensor, encoder(slices))
        few = slices_per_call(encoder, slices.device.type, len(slices))
        if not torch.is_grad_enabled():
            return torch.cat([encoder(part) for part in slices.split(few)])
        if encoder.frozen:
            with torch.no_grad():
                parts = [encoder.maps(part) for part in slices.split(few)]
            return encoder.combine([torch.cat(each) for each in zip(*parts, strict=True)])
        if self.slices_at_once is None:
            if (
                encoder.grouped
                and encoder.partly_frozen
                and slices.device.type == "cpu"
                and self.settings.batchnorm == "frozen"
            ):
                rows, cols = slices.shape[2:]
                parts = slices.split(max(1, PARTLY_FROZEN_PIXELS_AT_ONCE // (rows * cols)))
                return torch.cat([encoder(part) for part in parts])
            return cast(Tensor, encoder(slices))
        return encode_in_chunks(encoder, slices, self.slices_at_once)

    def refuse_size(self, side: int) -> None:
        """Refuses an input size that the encoder doesn't support, before any exam is read.

        Args:
            side: side of the slices in pixels: the preparation's crop.

        Raises:
            SettingsError: the encoder doesn't support slices of this size.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                encoder = next(iter(self.encoders.values()))  # all are of one kind
                encoder(next(encoder.parameters()).new_zeros(1, 1, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:  # timm asserts sizes
            raise SettingsError(
                "the encoder doesn't support slices of this size",
                code="encoder",
                expected=f"a larger preparation.crop, or another encoder than "
                f"{self.settings.encoder}",
                found=f"preparation.crop {side}: {str(error)[:200] or type(error).__name__}",
            ) from None
        finally:
            self.train(training)

    def forward(
        self,
        slices: Mapping[str, Float[Tensor, "_ channels _ _"]],
        lengths: Mapping[str, Int64[Tensor, " exams"]],
    ) -> Float[Tensor, "exams findings"]:
        """Computes one logit per exam and finding.

        Args:
            slices: series -> prepared slices of all exams of the batch, one exam after another, of
                1 channel or 3; number of slices and size may differ between series.
            lengths: series -> number of slices per exam; 0 if an exam lacks the series. Preferably
                in CPU memory, where they are read.

        Returns:
            Logits; exams in the order of the batch, findings in the order of `self.findings`. The
            logits of an exam depend on its own slices only (unless BatchNorm is trained).

        Raises:
            DataError: an exam has no slices in any series.
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
        """Computes logits from feature maps.

        The features of missing series are zeros, those of the others are multiplied by (number of
        series / number of present series); if scores are pooled, this applies to the pooled scores.

        Args:
            maps: series -> feature maps of all slices of all exams, one exam after another; series
                that no exam has may be missing.
            lengths: series -> number of slices per exam, 0 for missing series; None if all slices
                belong to one exam.
            present: for one exam, 1 for each series to use, else 0; None uses the series in `maps`.
                Needed for exported graphs, which can't branch on a value.

        Raises:
            DataError: an exam has no slices in any series.
        """
        shares = self._shares(maps, lengths, present)
        if self.transformer is not None:
            return self._attend(self.transformer, maps, lengths, shares)
        if self.evidence is None:
            return self._pool_features(maps, lengths, shares)
        scores, features = {}, {}
        for index, name in enumerate(self.series.names):
            if name in maps:
                dropped = functional.dropout2d(maps[name], self.dropout.p, self.training)
                # a product of matrices: weights of convolutions must be constants for 8 bits
                products = self._head_of(index) @ dropped.flatten(2)
                scores[index] = products.unflatten(2, dropped.shape[2:])
                if self.evidence.uses_features:
                    features[index] = maps[name].mean(dim=(2, 3))
        return self._pool_scores(self.evidence, scores, features, lengths, shares)

    def read_standardised(
        self,
        maps: Mapping[str, Sequence[Float[Tensor, "_ _ _ _"]]],
        lengths: Mapping[str, Sequence[int]],
    ) -> Reading:
        """Computes logits as `read` does, from the maps of `Encoder.standardise`, in less time.

        Args:
            maps: series -> standardised maps of all slices of all exams, from the finest to the
                coarsest; series that no exam has may be missing.
            lengths: series -> number of slices per exam, 0 for missing series.

        Raises:
            DataError: an exam has no slices in any series.
        """
        necks = {name: self.encoder(name).neck for name in maps}
        if (
            self.evidence is None
            or self.evidence.uses_features
            or not all(neck is not None and neck.linear for neck in necks.values())
        ):
            combined = {n: self.encoder(n).combine_standardised(own) for n, own in maps.items()}
            return self.read(combined, lengths)
        scores = {}
        for index, name in enumerate(self.series.names):
            if name in maps:
                ones = self.head.weight.new_ones(len(maps[name][0]), self.width, 1, 1)
                kept = functional.dropout2d(ones, self.dropout.p, self.training)
                matrices = self._head_of(index) * kept[:, None, :, 0, 0]
                scores[index] = cast(Neck, necks[name]).project_standardised(maps[name], matrices)
        shares = self._shares({}, lengths, None)
        return self._pool_scores(self.evidence, scores, {}, lengths, shares)

    def _head_of(self, index: int) -> Float[Tensor, "findings width"]:
        """Returns the head's weights for the features of a series."""
        return self.head.weight[:, index * self.width : (index + 1) * self.width]

    def _shares(
        self,
        maps: Mapping[str, Tensor],
        lengths: Mapping[str, Sequence[int]] | None,
        present: Float[Tensor, " series"] | None,
    ) -> Float[Tensor, "exams series"]:
        """Returns (number of series / number of present ones) per exam, 0 for missing series."""
        names = self.series.names
        if present is not None:
            counted = present[None]
        elif lengths is None:
            counted = self.head.weight.new_tensor([[float(name in maps) for name in names]])
        else:
            each = zip(*(lengths[name] for name in names), strict=True)
            nonempty = [[float(slices > 0) for slices in exam] for exam in each]
            counted = self.head.weight.new_tensor(nonempty)
            empty = [exam for exam, counts in enumerate(nonempty) if not any(counts)]
            if empty:
                raise DataError(
                    "an exam has no slices",
                    code="missing-plane",
                    expected="at least one series with slices",
                    found=f"none for exam {empty[0]} of the batch",
                )
        return counted * (len(names) / counted.sum(dim=1, keepdim=True))

    def _pool_features(
        self,
        maps: Mapping[str, Float[Tensor, "_ width _ _"]],
        lengths: Mapping[str, Sequence[int]] | None,
        shares: Float[Tensor, "exams series"],
    ) -> Reading:
        """Averages features over cells, pools them over slices and applies the head."""
        pooled, weights = [], {}
        for name in self.series.names:
            vectors = self.head.weight.new_zeros(len(shares), self.features)
            if name in maps:
                pooling = cast(Pooling, self.poolings[name])
                features = self._average(maps[name])
                if lengths is None:
                    vector, weights[name] = pooling(features)
                    vectors = vector[None]
                else:
                    vectors, weights[name] = pool_exams(pooling, features, lengths[name])
            pooled.append(vectors)
        features = torch.cat(pooled, dim=1)
        wide = shares.to(features.dtype)[:, :, None].expand(-1, -1, self.features).flatten(1)
        logits = self.head(self.dropout(features * wide))
        return Reading(logits, weights, shares, {})

    def _pool_scores(
        self,
        evidence: EvidencePooling,
        scores: Mapping[int, Float[Tensor, "_ findings _ _"]],
        features: Mapping[int, Float[Tensor, "_ width"]],
        lengths: Mapping[str, Sequence[int]] | None,
        shares: Float[Tensor, "exams series"],
    ) -> Reading:
        """Pools the scores of the cells, exam by exam."""
        if lengths is None:
            exams = [evidence(scores, features, shares[0])]
        else:
            counts = {index: list(lengths[self.series.names[index]]) for index in scores}
            each_scores = {index: own.split(counts[index]) for index, own in scores.items()}
            each_features = {index: own.split(counts[index]) for index, own in features.items()}
            exams = []
            for exam, own_shares in enumerate(shares):
                present = [index for index, own in counts.items() if own[exam]]
                exams.append(
                    evidence(
                        {index: each_scores[index][exam] for index in present},
                        {i: own[exam] for i, own in each_features.items() if i in present},
                        own_shares,
                    )
                )
        logits = [
            torch.stack([p.sum(dim=(0, 2, 3)) for p in exam.values()]).sum(0) for exam in exams
        ]
        joined = {
            self.series.names[index]: torch.cat([exam[index] for exam in exams if index in exam])
            for index in scores
        }
        return Reading(torch.stack(logits) + self.head.bias, {}, shares, joined)

    def _attend(
        self,
        transformer: SliceTransformer,
        maps: Mapping[str, Float[Tensor, "_ width _ _"]],
        lengths: Mapping[str, Sequence[int]] | None,
        shares: Float[Tensor, "exams series"],
    ) -> Reading:
        """Averages features over cells, and applies transformer and head exam by exam."""
        names = self.series.names
        features = {i: maps[n].mean(dim=(2, 3)) for i, n in enumerate(names) if n in maps}
        if lengths is None:
            exams = [features]
        else:
            parts = {i: own.split(list(lengths[names[i]])) for i, own in features.items()}
            exams = [
                {i: own[exam] for i, own in parts.items() if len(own[exam])}
                for exam in range(len(shares))
            ]
        tokens = torch.stack([transformer(exam) for exam in exams])
        return Reading(self.head(self.dropout(tokens)), {}, shares, {})

    def refuse_unexplainable(self) -> None:
        """Refuses a network whose logits can't be decomposed.

        Raises:
            ModelError: the network has a transformer over slices.
        """
        if not self.explainable:
            raise ModelError(
                "this network has no exact explanation",
                code="no-explanation",
                expected="a network.slice_pooling whose logits are sums over slices and cells: "
                "any but transformer",
                found=f"network.slice_pooling {self.settings.slice_pooling}",
                advice="use the run folder with `mrknee predict` and `mrknee evaluate`; "
                "explanations, and exported files, which contain them, need another pooling",
            )

    def contributions(
        self, maps: Mapping[str, Float[Tensor, "_ width _ _"]], reading: Reading
    ) -> dict[str, Float[Tensor, "findings _ _ _"]]:
        """Computes the contribution of each cell of one exam's feature maps to each logit.

        Args:
            maps: series -> feature maps of the exam.
            reading: the result of `read` for these maps.

        Returns:
            Series -> contributions (findings, slices, map rows, map cols); together with the bias
            of the head they add up to the logits.

        Raises:
            ModelError: the network has a transformer over slices.
        """
        self.refuse_unexplainable()
        if self.evidence is not None:
            return {name: part.transpose(0, 1) for name, part in reading.contributions.items()}
        heads = self.head.weight.split(self.features, dim=1)
        parts = {}
        for index, name in enumerate(self.series.names):
            if name in maps:
                each = heads[index][:, None] * reading.weights[name]
                if self.settings.detail_crops:
                    crops = self._crops(maps[name])
                    each = each.unflatten(2, (len(crops), self.width))
                    added = torch.einsum("fsdw,swrc,drc->fsrc", each, maps[name], crops)
                else:
                    cells = maps[name].shape[2] * maps[name].shape[3]
                    added = torch.einsum("fsw,swrc->fsrc", each / cells, maps[name])
                parts[name] = added * reading.shares[0, index]
        return parts

    def _average(
        self, maps: Float[Tensor, "slices width rows cols"]
    ) -> Float[Tensor, "slices {self.features}"]:
        """Averages features over all cells of each slice, or over concentric crops."""
        if not self.settings.detail_crops:
            return maps.mean(dim=(2, 3))
        return torch.einsum("swrc,drc->sdw", maps, self._crops(maps)).flatten(1)

    def _crops(
        self, maps: Float[Tensor, "slices width rows cols"]
    ) -> Float[Tensor, "crops rows cols"]:
        """Returns the weights of the cells in the averages over concentric crops."""
        return crop_weights(self.settings.detail_crops, *maps.shape[2:]).to(maps)

    def train(self, mode: bool = True) -> Network:
        """Sets training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders.values():
            assert isinstance(encoder, Encoder)  # noqa: S101 - for the type checker
            encoder.keep_frozen(batchnorm=self.settings.batchnorm == "frozen")
        return self
