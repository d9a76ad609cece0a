"""The encoders known by name, and what is known about each; importing this file imports no torch.

Any other name that timm knows can be used too (`mrknee.networks.encoders`): these are the ones
looked at closely, with their numbers written down here and checked against the libraries in tests.
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
"""ImageNet's mean colour, of values 0 to 1 (torchvision's and timm's constant)."""

IMAGENET_SD: Channels = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of each colour, of values 0 to 1."""

HALF: Channels = (0.5, 0.5, 0.5)
"""Mean and deviation of encoders trained on values scaled to -1 to 1."""


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder known by name.

    Attributes:
        name: the name to give as `encoder`.
        library: which library builds it: `torchvision` or `timm`.
        width: channels of its feature map.
        stages: how many stages it has that can be frozen, counted from the input.
        parameters: how many parameters it has without its classifier, in millions.
        mean: mean of the values 0 to 1 that its pretrained weights expect subtracted.
        sd: standard deviation that its pretrained weights expect divided by.
        source: where `--weights download` takes the weights from.
        licence: licence of those weights, as their source states it.
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
"""By name; width, statistics, source and licence as torchvision 0.29 and timm 1.0.31 state them."""


PUBLISHED = (58.09, 49.73)
"""Mean and SD, on the scale 0..255, that the published system gives its AlexNet: those of MRNet's
training set, from its code, though the weights are ImageNet's."""


def grey_statistics(mean: Channels, sd: Channels) -> tuple[float, float]:
    """One mean and SD for grey pictures, on the scale 0..255: the means over the channels."""
    return round(255 * sum(mean) / 3, 2), round(255 * sum(sd) / 3, 2)


class EncoderTable(tuple[EncoderEntry, ...]):
    """The encoders known by name, shown as a table."""

    __slots__ = ()

    def __new__(cls) -> EncoderTable:
        """All of them."""
        return super().__new__(cls, ENCODERS.values())

    def to_list(self) -> list[dict[str, Any]]:
        """Each as plain lists, numbers and strings, ready for JSON."""
        return [asdict(entry) for entry in self]

    def to_frame(self) -> DataFrame:
        """The table as a pandas DataFrame: one row per encoder, indexed by name.

        Raises:
            PlatformError: pandas is not installed.
        """
        rows = self.to_list()
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "name"}
        return data_frame(columns, [entry.name for entry in self], "name")

    def __repr__(self) -> str:
        rows = [[str(value) for value in row.values()] for row in self.to_list()]
        return "\n".join(table_lines([list(self.to_list()[0]), *rows]))
