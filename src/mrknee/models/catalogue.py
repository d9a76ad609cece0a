"""The catalogue of encoders with their properties; importing this module doesn't import torch.

Any other model name of timm can be used too (`mrknee.models.encoders`). The properties of the
encoders in the catalogue are compared with those of the libraries in the tests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mrknee.extras import data_frame
from mrknee.tables import table_lines

if TYPE_CHECKING:
    from pandas import DataFrame

Channels = tuple[float, float, float]
"""One number per colour channel: red, green, blue."""

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
"""Mean of ImageNet per channel, for values from 0 to 1 (as in torchvision and timm)."""

IMAGENET_SD: Channels = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet per channel, for values from 0 to 1."""

HALF: Channels = (0.5, 0.5, 0.5)
"""Mean and standard deviation for encoders trained on values scaled to -1 to 1."""


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder of the catalogue.

    Attributes:
        name: value of the setting `encoder`.
        library: the library that builds the encoder: `torchvision` or `timm`.
        width: channels of the feature map.
        stages: number of stages that can be frozen, counted from the input.
        parameters: number of parameters without classifier, in millions.
        mean: mean per channel, for values from 0 to 1, that the pretrained weights expect.
        sd: standard deviation per channel that the pretrained weights expect.
        source: address of the weights for `--weights download`.
        licence: licence of these weights, as stated by their source.
    """

    name: str
    library: str
    width: int
    stages: int
    parameters: float
    mean: Channels
    sd: Channels
    source: str
    licence: str


ENCODERS: dict[str, EncoderEntry] = {
    entry.name: entry
    for entry in (
        EncoderEntry(
            "alexnet",
            "torchvision",
            256,
            5,
            2.47,
            IMAGENET_MEAN,
            IMAGENET_SD,
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "bsd-3-clause",
        ),
        EncoderEntry(
            "vgg16",
            "timm",
            512,
            13,
            14.71,
            IMAGENET_MEAN,
            IMAGENET_SD,
            "https://huggingface.co/timm/vgg16.tv_in1k",
            "bsd-3-clause",
        ),
        EncoderEntry(
            "resnet50",
            "timm",
            2048,
            5,
            23.51,
            IMAGENET_MEAN,
            IMAGENET_SD,
            "https://huggingface.co/timm/resnet50.a1_in1k",
            "apache-2.0",
        ),
        EncoderEntry(
            "convnext_tiny",
            "timm",
            768,
            5,
            27.82,
            IMAGENET_MEAN,
            IMAGENET_SD,
            "https://huggingface.co/timm/convnext_tiny.in12k_ft_in1k",
            "apache-2.0",
        ),
        EncoderEntry(
            "efficientnet_b0",
            "timm",
            1280,
            8,
            4.01,
            IMAGENET_MEAN,
            IMAGENET_SD,
            "https://huggingface.co/timm/efficientnet_b0.ra_in1k",
            "apache-2.0",
        ),
        EncoderEntry(
            "tf_efficientnet_lite0",
            "timm",
            1280,
            8,
            3.37,
            HALF,
            HALF,
            "https://huggingface.co/timm/tf_efficientnet_lite0.in1k",
            "apache-2.0",
        ),
        EncoderEntry(
            "vit_small_patch16_224",
            "timm",
            384,
            13,
            21.67,
            HALF,
            HALF,
            "https://huggingface.co/timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
            "apache-2.0",
        ),
    )
}
"""Name -> encoder; width, statistics, source and licence are from torchvision 0.29 and timm 1.0.31.
"""


PUBLISHED = (58.09, 49.73)
"""Mean and SD, 0 to 255, that the published system uses for AlexNet (from its code): those of
MRNet's training set, although the weights are from ImageNet."""


def grey_statistics(mean: Channels, sd: Channels) -> tuple[float, float]:
    """Returns mean and SD for grey images, 0 to 255: the means over the channels."""
    return round(255 * sum(mean) / 3, 2), round(255 * sum(sd) / 3, 2)


class EncoderTable(tuple[EncoderEntry, ...]):
    """The encoders of the catalogue; `repr` shows them as a table."""

    __slots__ = ()

    def __new__(cls) -> EncoderTable:
        """Lists all encoders of the catalogue."""
        return super().__new__(cls, ENCODERS.values())

    def to_list(self) -> list[dict[str, Any]]:
        """Converts the encoders to dictionaries for JSON."""
        return [asdict(entry) for entry in self]

    def to_frame(self) -> DataFrame:
        """Converts the table to a pandas DataFrame: one row per encoder, indexed by name.

        Raises:
            PlatformError: pandas is not installed.
        """
        rows = self.to_list()
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "name"}
        return data_frame(columns, [entry.name for entry in self], "name")

    def __repr__(self) -> str:
        rows = [[str(value) for value in row.values()] for row in self.to_list()]
        return "\n".join(table_lines([list(self.to_list()[0]), *rows]))
