from __future__ import annotations

import numpy as np
import pytest
import torch

from mrknee.errors import MrkneeError
from mrknee.exams import Exam
from mrknee.transforms.batches import frame_exam
from mrknee.transforms.preparation import Preparation

RNG = np.random.default_rng(0)


def stack(slices: int, rows: int, cols: int) -> torch.Tensor:
    """Returns random grey values."""
    return torch.from_numpy(RNG.integers(3, 240, (slices, rows, cols), dtype=np.uint8))


def plainly_prepared(image: np.ndarray) -> np.ndarray:
    """Computes the reference's preparation from its description, in float64."""
    margin = (256 - 224) // 2
    cut = image[:, margin : 256 - margin, margin : 256 - margin].astype(np.float64)
    scaled = (cut - cut.min()) / (cut.max() - cut.min()) * 255
    grey = (scaled - 58.09) / 49.73
    return np.asarray(grey[:, np.newaxis])


def test_the_preparation_equals_the_references() -> None:
    """Crop, scaling, mean and SD equal an independent implementation within 1e-5."""
    images = [stack(slices, 256, 256) for slices in (17, 1, 40)]
    preparation = Preparation()
    framed = [preparation.frame(image) for image in images]
    prepared = preparation.normalise(torch.cat(framed), torch.tensor([len(f) for f in framed]))
    expected = np.concatenate([plainly_prepared(image.numpy()) for image in images])
    assert prepared.shape == (58, 1, 224, 224)
    np.testing.assert_allclose(prepared.numpy(), expected, rtol=0, atol=1e-5)


def test_a_224_pixel_stack_is_not_cropped_away() -> None:
    """The reference's `pad:-pad` would be empty here; this preparation keeps the stack."""
    image = stack(3, 224, 224)
    assert torch.equal(Preparation().frame(image), image)


def test_a_constant_stack_is_not_divided_by_zero() -> None:
    """The reference divides by zero here; this preparation returns (0 - mean) / SD."""
    prepared = Preparation().normalise(
        torch.full((2, 8, 8), 77, dtype=torch.uint8), torch.tensor([2])
    )
    torch.testing.assert_close(prepared, torch.full((2, 1, 8, 8), -58.09 / 49.73))


def test_minimum_and_maximum_are_computed_per_exam() -> None:
    """A bright exam next to a dark one in a batch has no effect."""
    dark, bright = stack(2, 8, 8) // 4, stack(3, 8, 8)
    preparation = Preparation()
    together = preparation.normalise(torch.cat([dark, bright]), torch.tensor([2, 3]))
    alone = preparation.normalise(dark, torch.tensor([2]))
    assert torch.equal(together[:2], alone)


def test_a_missing_plane_has_no_slices() -> None:
    """An exam without slices between two others is skipped."""
    slices = stack(3, 8, 8)
    prepared = Preparation().normalise(slices, torch.tensor([2, 0, 1]))
    assert torch.equal(prepared[2:], Preparation().normalise(slices[2:], torch.tensor([1])))
    assert Preparation().normalise(slices[:0], torch.tensor([0])).shape == (0, 1, 8, 8)


def test_neighbours_are_the_channels() -> None:
    """Slice i has the channels i - 1, i, i + 1 of its exam; at the ends itself.

    Exams of 1, 0, 2 and 4 slices follow each other in the batch, and none sees another.
    """
    slices = stack(7, 5, 6)
    lengths = torch.tensor([1, 0, 2, 4])
    grey = Preparation(size=6, crop=5).normalise(slices, lengths)[:, 0]
    found = Preparation(size=6, crop=5, neighbours=True).normalise(slices, lengths)
    expected = [(0, 0, 0), (1, 1, 2), (1, 2, 2), (3, 3, 4), (3, 4, 5), (4, 5, 6), (5, 6, 6)]
    assert found.shape == (7, 3, 5, 6)
    for channels, indices in zip(found, expected, strict=True):
        assert torch.equal(channels, grey[list(indices)])
    assert found.is_contiguous(memory_format=torch.channels_last)
    empty = Preparation(neighbours=True).normalise(slices[:0], torch.tensor([0]))
    assert empty.shape == (0, 3, 5, 6)


@pytest.mark.parametrize(
    "size", [(256, 256), (224, 256), (512, 512), (320, 512), (100, 80), (1, 1), (257, 3)]
)
def test_any_in_plane_size_becomes_the_crop(size: tuple[int, int]) -> None:
    """Smaller, larger and non-square slices are all resized to the crop's size."""
    assert Preparation().frame(stack(2, *size)).shape == (2, 224, 224)


def test_a_larger_stack_keeps_its_proportions() -> None:
    """A disc at 512 pixels becomes the same as one drawn at 256."""

    def disc(side: int) -> torch.Tensor:
        at = (torch.arange(side) + 0.5) / side - 0.5
        return ((at[:, None] ** 2 + at**2 < 0.09) * 200).to(torch.uint8)[None]

    small, large = (Preparation().frame(disc(side)).float() for side in (256, 512))
    assert (small - large).abs().mean() < 1.0


def test_a_small_stack_has_its_centre_enlarged() -> None:
    """With `min_size`, a stack is scaled up to it before the crop; others stay as they are."""
    ramp = torch.arange(96, dtype=torch.uint8).expand(1, 96, 96)
    zoomed = Preparation(size=192, min_size=192, crop=128)
    framed = zoomed.frame(ramp)[0, 0].float()
    assert framed.shape == (128,)
    # pixel 32 of the enlarged image begins at the edge of pixel 16, and is half as wide
    centres = torch.arange(32, 160) / 2 - 0.25
    assert (framed - centres).abs().max() <= 0.5  # values are rounded
    assert not zoomed.only_cuts(96, 96)
    assert zoomed.only_cuts(192, 192)
    assert zoomed.axes(400, 200)[0].scaled == 192
    between = Preparation(size=256, min_size=160, crop=128)
    assert [between.axes(side, side)[0].scaled for side in (100, 160, 200, 300)] == [
        160, 160, 200, 256
    ]  # fmt: skip


@pytest.mark.parametrize("least", [None, 128, 160, 192])
@pytest.mark.parametrize("sides", [(96, 96), (150, 150), (192, 192), (192, 130), (300, 200)])
def test_reading_an_exam_frames_it_once(least: int | None, sides: tuple[int, int]) -> None:
    """Also if a stack is large enough for `min_size`, and its crop alone wouldn't be."""
    preparation = Preparation(size=192, min_size=least, crop=128)
    image = np.random.default_rng(0).integers(0, 256, (3, *sides), np.uint8)
    wanted = preparation.frame(torch.from_numpy(image))
    assert torch.equal(preparation.read(image), wanted)
    exam = Exam("a", {"axial": image})
    assert torch.equal(frame_exam(exam, preparation).slices["axial"], wanted)


def test_a_short_side_is_padded_with_the_minimum() -> None:
    """A narrow image is centred and padded with the stack's minimum."""
    framed = Preparation(size=8, crop=8).frame(stack(1, 8, 4))
    assert (framed[:, :, :2] == framed.min()).all()
    assert (framed[:, :, 6:] == framed.min()).all()


@pytest.mark.parametrize("size", [(1024, 1), (1, 900), (3, 2000), (40, 1)])
def test_a_very_narrow_stack_is_not_black(size: tuple[int, int]) -> None:
    """A side is scaled to at least 2 pixels, because torch's interpolation to 1 pixel is black."""
    image = torch.full((2, *size), 200, dtype=torch.uint8)
    assert (Preparation().resize(image) == 200).all()


@pytest.mark.parametrize(
    "settings", [{"crop": 300}, {"crop": 0}, {"sd": 0.0}, {"min_size": 200}, {"min_size": 300}]
)
def test_contradictions_are_refused(settings: dict[str, float]) -> None:
    """A crop larger than the image, or an SD of zero, is an error."""
    with pytest.raises(MrkneeError):
        Preparation(**settings)  # type: ignore[arg-type]


def test_settings_are_restored_from_json() -> None:
    """Settings saved with the weights give the same preparation."""
    preparation = Preparation(size=128, crop=112, mean=1.5, sd=2.5)
    assert Preparation(**preparation.to_dict()) == preparation
