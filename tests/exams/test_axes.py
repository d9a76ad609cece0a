from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Dataset, Plane, write_stack
from mrknee.exams.axes import (
    AXES,
    Axes,
    Shape,
    in_order,
    other_axes,
    parse_axes,
    refuse_other_axes,
    shape_in_order,
)

LAST: Axes = ("rows", "cols", "slices")
MIDDLE: Axes = ("rows", "slices", "cols")


def seen(*shapes: Shape) -> Axes | None:
    """The order that one stack per plane seems to have; shapes are axial, coronal, sagittal."""
    found = other_axes({p: [s] for p, s in zip(PLANES, shapes, strict=False)})
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((256, 256, 30), LAST),
        ((256, 256, 1), LAST),
        ((320, 288, 24), LAST),
        ((320, 200, 25), LAST),  # a rectangular field of 62 %
        ((200, 25, 384), MIDDLE),
        ((64, 64, 20), LAST),
        ((256, 30, 256), MIDDLE),
        ((512, 94, 480), MIDDLE),
    ],
)
def test_a_stack_with_implausibly_long_slices_is_reordered(shape: Shape, order: Axes) -> None:
    """Slices 3 times longer than wide aren't a knee's if two other axes can form an image."""
    assert seen(shape) == order


@pytest.mark.parametrize(
    "shape",
    [
        (30, 256, 256),
        (1, 256, 256),
        (61, 64, 64),
        (64, 64, 64),
        (200, 256, 256),
        (256, 256, 256),
        (24, 320, 120),  # a narrow image, but 24 x 320 isn't one
        (160, 256, 160),
        (320, 320, 224),  # a 3D series, reformatted to coronal
        (3, 40, 4),
        (9, 9, 1),  # fewer pixels than an image has
    ],
)
def test_a_correct_single_stack_is_accepted(shape: Shape) -> None:
    """Few slices, many slices, small images, cubes and reformatted series keep their order."""
    assert seen(shape) is None


def test_the_stacks_of_an_exam_reveal_an_order_that_one_stack_does_not() -> None:
    """If the first two axes are equal and the third is shorter in all planes, slices are last."""
    assert seen((64, 64, 40), (64, 64, 35), (64, 64, 61)) == LAST
    assert seen((64, 40, 64), (64, 35, 64)) == MIDDLE
    assert seen((64, 64, 40)) is None
    assert seen((40, 64, 64), (64, 64, 35), (61, 64, 64)) is None


def test_a_reformatted_volume_is_accepted() -> None:
    """With 224 x 320 x 320 voxels, the sagittal stack confirms the expected order."""
    assert seen((320, 320, 224), (320, 320, 224), (224, 320, 320)) is None
    assert seen((160, 160, 160), (160, 160, 160), (160, 160, 160)) is None


def test_the_axis_that_varies_over_a_data_set_counts_the_slices() -> None:
    """If two axes have one size and the third varies, the third counts the slices."""
    counts = (90, 100, 110, 120, 130)
    wrong = {str(plane): [(200, 180, n) for n in counts] for plane in PLANES}
    right = {str(plane): [(n, 200, 180) for n in counts] for plane in PLANES}
    found = other_axes(wrong)
    assert found is not None
    assert found[0] == LAST
    assert "axis 3 varies" in found[1]
    assert other_axes(right) is None
    assert other_axes({p: shapes[:3] for p, shapes in wrong.items()}) is None  # too few
    assert other_axes(wrong | {Plane.SAGITTAL: right[Plane.SAGITTAL]}) is None


def test_the_error_names_the_order_and_both_options() -> None:
    """The message gives the option for the detected order and the one that disables detection."""
    with pytest.raises(MrkneeError, match="another order") as error:
        refuse_other_axes({Plane.AXIAL: [(256, 256, 30)]}, exam="7")
    assert "(rows, cols, slices)" in (error.value.found or "")
    assert "--axes rows,cols,slices" in (error.value.advice or "")
    assert "--axes slices,rows,cols" in (error.value.advice or "")
    assert error.value.exam == "7"


def test_orders_are_parsed_and_undone() -> None:
    """Every order of the three names is transposed back to (slices, rows, cols)."""
    stack = np.arange(24).reshape(2, 3, 4)
    for text in ("rows,cols,slices", "Rows, Slices, Cols", "slices,rows,cols", "cols,rows,slices"):
        axes = parse_axes(text)
        saved = stack.transpose([AXES.index(name) for name in axes])
        np.testing.assert_array_equal(in_order(saved, axes), stack)
        slices, rows, cols = saved.shape
        assert shape_in_order((slices, rows, cols), axes) == (2, 3, 4)


@pytest.mark.parametrize("text", ["", "rows,cols", "rows,cols,depth", "rows,rows,cols", "0,1,2"])
def test_an_invalid_order_is_refused(text: str) -> None:
    """Anything but the three names, each once, is refused."""
    with pytest.raises(MrkneeError, match="order of axes"):
        parse_axes(text)


def turned(root: Path) -> Path:
    """Writes exams whose stacks are all saved as (rows, cols, slices)."""
    rng = np.random.default_rng(0)
    for number in range(3):
        for plane in PLANES:
            stack = rng.integers(0, 200, (int(rng.integers(20, 40)), 64, 64), dtype=np.uint8)
            write_stack(root, plane, f"{number:04d}", stack)
            file = root / plane / f"{number:04d}.npy"
            np.save(file, np.moveaxis(stack, 0, 2))
    return root


def test_a_folder_with_other_axes_is_read_only_with_the_order_given(tmp_path: Path) -> None:
    """Without the order the exams are refused; with the order all stacks are correct."""
    folder = turned(tmp_path)
    with pytest.raises(MrkneeError, match="another order") as error:
        Dataset(folder)[0]
    assert error.value.file == str(folder)
    exams = Dataset(folder, axes="rows,cols,slices")
    stored = np.load(folder / "coronal" / "0001.npy")
    stack = exams[1].stacks[Plane.CORONAL]
    np.testing.assert_array_equal(stack, np.moveaxis(stored, 2, 0))
    assert stack.flags.c_contiguous
    assert exams.shapes(1)[Plane.CORONAL] == stack.shape
    assert Dataset(folder, axes="slices,rows,cols")[1].stacks[Plane.CORONAL].shape[0] == 64


def write_mixed(folder: Path) -> None:
    """Writes three exams, one stack of which is saved as (rows, cols, slices)."""
    for number in range(3):
        for plane in PLANES:
            write_stack(folder, plane, str(number), np.ones((9, 64, 64), np.uint8))
    np.save(folder / "axial" / "2.npy", np.ones((64, 64, 9), np.uint8))


def test_one_transposed_stack_among_others_is_named(tmp_path: Path) -> None:
    """A single exam in another order is refused, with its id, before any exam is read."""
    write_mixed(tmp_path)
    with pytest.raises(MrkneeError, match="another order") as error:
        Dataset(tmp_path)[0]
    assert error.value.exam == "2"


def test_an_order_is_advised_only_if_it_suits_all_stacks(tmp_path: Path) -> None:
    """With mixed orders, --axes would read some stacks incorrectly: it isn't advised, and fails."""
    write_mixed(tmp_path)
    with pytest.raises(MrkneeError, match="another order") as error:
        Dataset(tmp_path)[0]
    advice = error.value.advice or ""
    assert "--axes rows,cols,slices" not in advice
    assert "incorrectly" in advice
    with pytest.raises(MrkneeError, match="don't seem to be in the given order") as error:
        Dataset(tmp_path, axes="rows,cols,slices")[0]
    assert error.value.exam == "0"
    assert Dataset(tmp_path, axes="slices,rows,cols")[2].stacks[Plane.AXIAL].shape[0] == 64
