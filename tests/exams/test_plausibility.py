from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import MRNET_SERIES, PLANES, Exam, Inspected, Plane, Stack, StackSizes, remarks_of
from mrknee.exams.plausibility import CODES, sizes_from, summary


def noise(shape: tuple[int, int, int] = (9, 64, 64), seed: int = 0) -> Stack:
    """Returns a stack of noise, 0 to 199."""
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def exam(**changed: Stack) -> Exam:
    """Returns an exam of three different stacks of noise, some of them replaced."""
    stacks = {plane: noise(seed=seed) for seed, plane in enumerate(PLANES)}
    return Exam("7", stacks | {Plane(name): stack for name, stack in changed.items()})


def codes(found: Exam, trained: Mapping[str, StackSizes] | None = None) -> list[str]:
    """Returns the codes of the remarks on an exam."""
    return [remark.code for remark in remarks_of(found, trained)]


def test_an_ordinary_exam_has_no_remark() -> None:
    """Three different stacks with contrast have no remarks."""
    assert remarks_of(exam()) == ()


ODD = {
    "all-zero": np.zeros((9, 64, 64), np.uint8),
    "constant": np.full((9, 64, 64), 80, np.uint8),
    "one-slice": noise((1, 64, 64)),
    "equal-slices": np.repeat(noise((1, 64, 64)), 9, axis=0),
    "low-contrast": noise() % 15,
    "copy-planes": noise(seed=0),
    "other-axes": np.moveaxis(noise(), 0, 2),
}


@pytest.mark.parametrize("code", ODD)
def test_each_peculiarity_of_a_stack_has_its_remark(code: str) -> None:
    """The fault of the sagittal stack gives exactly one remark."""
    found = remarks_of(exam(sagittal=ODD[code]))
    assert [remark.code for remark in found] == [code]
    assert "sagittal" in str(found[0])
    assert code in CODES


def test_one_bright_pixel_does_not_hide_low_contrast() -> None:
    """A uint8 stack whose range is due to one hot pixel has low contrast."""
    stack = noise() % 10
    stack[4, 30, 30] = 255
    assert codes(exam(axial=stack)) == ["low-contrast"]


def in_corner(pixels: int) -> Stack:
    """Returns a black stack with noise in one corner of each slice."""
    stack = np.zeros((9, 64, 64), np.uint8)
    stack[:, :pixels, :pixels] = noise((9, pixels, pixels))
    return stack


def test_a_stack_that_is_black_except_a_corner_has_low_contrast() -> None:
    """If 9 in 10 pixels have one value, the contrast is low."""
    assert codes(exam(axial=in_corner(20))) == ["low-contrast"], "noise on a tenth of the pixels"
    assert codes(exam(axial=in_corner(37))) == [], "a third: a knee in air"


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("odd", [0, 255])
def test_padding_does_not_hide_low_contrast(share: float, odd: int) -> None:
    """Padding and clipped values don't count as contrast."""
    stack = noise() % 10 + 100
    stack[:, : round(64 * share)] = odd
    assert codes(exam(axial=stack)) == ["low-contrast"]


def test_single_valued_slices_are_reported_from_a_quarter_on() -> None:
    """Constant slices have no content, even if their values differ between slices."""
    stack = noise((12, 64, 64))
    stack[:2] = 7
    assert codes(exam(axial=stack)) == [], "two of twelve"
    stack[5] = 0
    assert codes(exam(axial=stack)) == ["empty-slices"], "three of twelve"
    stack[:] = np.arange(12, dtype=np.uint8)[:, None, None] * 20
    assert codes(exam(axial=stack)) == ["empty-slices"], "all, each with a value of its own"


def test_three_black_planes_are_not_reported_as_copies() -> None:
    """Black stacks are reported as black only."""
    black = ODD["all-zero"]
    assert codes(Exam("7", dict.fromkeys(PLANES, black))) == ["all-zero"] * 3


def test_sizes_outside_the_training_range_are_reported() -> None:
    """In-plane size and number of slices are compared with the range in training."""
    shapes = [(17, 64, 60), (30, 64, 64)]
    trained = dict.fromkeys(MRNET_SERIES.names, StackSizes.of(shapes))
    fits = {plane: noise((20, 64, 62), seed) for seed, plane in enumerate(PLANES)}
    assert codes(Exam("7", fits), trained) == []
    for slices, found in ((60, []), (61, ["other-slices"]), (9, []), (8, ["other-slices"])):
        one = Exam("7", fits | {PLANES[0]: noise((slices, 64, 62))})
        assert codes(one, trained) == found, "half the fewest to twice the most slices are usual"
    assert codes(Exam("7", fits | {PLANES[1]: noise((20, 65, 62))}), trained) == ["other-size"]
    assert codes(Exam("7", fits | {PLANES[1]: noise((20, 65, 62))}), {}) == []


def test_sizes_are_written_and_read() -> None:
    """The sizes that training records are read back; without them no size is checked."""
    sizes = StackSizes.of([(17, 256, 256), (61, 256, 200)])
    assert sizes_from({"axial": sizes.to_dict()}) == {Plane.AXIAL: sizes}
    assert sizes_from(None) == {}


WRONG = [
    "axial",
    {"axial": {}},
    {"axial": {"slices": [2, 1], "rows": [1, 2], "cols": [1, 2]}},
    {"axial": {"slices": [1.0, 2], "rows": [1, 2], "cols": [1, 2]}},
    {"axial": {"slices": [1, 2, 3], "rows": [1, 2], "cols": [1, 2]}},
    {"axial": {"slices": 3, "rows": [1, 2], "cols": [1, 2]}},
    {"axial": {"slices": [1, 2], "rows": [1, 2], "cols": [1, 2], "more": [1, 2]}},
]


@pytest.mark.parametrize("content", WRONG)
def test_broken_sizes_are_refused(content: object) -> None:
    """Sizes in a form that training doesn't write are refused."""
    with pytest.raises(MrkneeError, match="trained on can't be read"):
        sizes_from(content)


def test_inspected_exams_keep_their_remarks() -> None:
    """Exams are returned unchanged; remarks cover all exams, including those not read before."""
    exams = [exam(), exam(axial=ODD["all-zero"])]
    inspected = Inspected([exams[0], Exam("8", exams[1].stacks)])
    assert inspected[0] is exams[0]
    assert [(i, [r.code for r in rs]) for i, rs in inspected.remarks().items()] == [
        ("8", ["all-zero"])
    ]


def test_the_summary_names_exams_and_is_bounded() -> None:
    """The text names the first exams with their remarks, and counts the others."""
    found = remarks_of(exam(axial=ODD["all-zero"]))
    text = summary({str(number): found for number in range(12)}, shown=10)
    assert text.startswith("12 implausible exams")
    assert "  0: axial: each of its 36,864 pixels is 0 [all-zero]" in text
    assert text.endswith("and 2 more")
