"""Refusal of unsuitable series: localisers, maps, reformats, other body parts, bad geometry.

docs/reference/import-rules.md states the rules; change both together.
"""

from __future__ import annotations

import re

from mrknee.exams import Plane
from mrknee.sources.clinical.anatomy import other_part
from mrknee.sources.clinical.contrast import WATER
from mrknee.sources.clinical.header import MR_IMAGES, Image
from mrknee.sources.clinical.series import Series
from mrknee.sources.clinical.words import normalised, vocabulary, words_of

MAX_OBLIQUE_DEGREES = 35.0
FEW_SLICES = 10
MRNET_SLICES = (17, 61)
"""Numbers of slices of MRNet's smallest and largest stack."""
MAX_SPACING_MM, MAX_PIXEL_MM, WIDE_FIELD_MM = 8.0, 1.5, 300.0
"""Knees have slices 0.5 to 5 mm apart, pixels of 0.2 to 0.8 mm and fields of 140 to 180 mm;
localisers have slices 10 mm and more apart, and pixels of 1.5 to 2 mm in fields of 350 to 450."""
WIDEST_KNEE_MM = 180.0
"""Sagittal stacks of one knee are 80 to 160 mm wide from right to left, of both legs 200 and more.
"""
FAST_REPETITION_MS = 20.0
"""Localisers are gradient echoes with TR 3 to 15 ms. 3-D sequences of the knee are as fast, but
have more slices than MRNet's smallest stack."""

# Words of SeriesDescription or ProtocolName, without accents, punctuation replaced by spaces.
_LOCALISER = re.compile(
    r"\b(?:\w*lo[ck]ali[sz]\w*|lo[ck]at(?:or|eur|ore)\w*|\w*(?<!b)loc\d*|loc\d+\w*|\w*scout\w*"
    r"|\w*survey\w*|surv|\w*reperage\w*|topogramm?\w*|scanogram\w*|\w*scano|scno|fastview"
    r"|aaknee\w*|smart ?(?:exam|knee|brain)\w*"
    r"|локал\w*|kilavuz"
    r"|(?:3|three|tri) ?p(?:l|lane|lanes|lanar)(?: loc\w*)?)\b"
)
# Likewise, but in SeriesDescription only: ProtocolName may describe the complete examination.
_PLANNING = re.compile(
    r"\b(?:reperes?|topo|loca|pilot[eo]?|plan ?scans?|planning|planung|planificac\w*|planification"
    r"|centratore|centraggio|centraje|centratura|centragem|centrado|positioning|positionneur"
    r"|posi[cz]ionament?o|posicionamiento|u(?:e)?bersicht\w*|overzicht\w*|overview"
    r"|(?:drei|trois|tres|tre|3) ?(?:ebenen|plans?|planos|piani|axes|ejes|assi|eksen|duzlem)"
    r"|cal|[ck]alibr\w*|asset cal\w*|ref ?scans?|reference scans?"
    r"|(?:sense|coil|coils|coca|grappa|smash|speeder) (?:ref|reference|sens|sensitivity)\w*"
    r"|ref (?:sense|coil)|senseref|pre ?scan|shim\w*|b1 cal\w*|auto ?align\w*)\b"
)
_COMPUTED = re.compile(
    r"\b(?:mpr\w*|\w+mpr|\w*mip|m[in]n?ip|reformat\w*|rfmt|reslice\w*|resampl\w*"
    r"|(?<!acl )(?<!pcl )re[ck]on(?:s|str\w*)?|proje[ck]tion\w*|pjn|sub|subs|sub\d+|subtr\w*"
    r"|soustr\w*|sottraz\w*|sustrac\w*|vrt|ssd|curved|fused|overlay|colou?r|calc|calculated"
    r"|computed|synthetic|averaged|adc|[de]adc|tracew|parametric|segmentation|registered"
    r"|std ?dev|ricostru\w*|umrechnung|volume ?render\w*|3d vr|vr 3d)\b"
)
_SCREEN = re.compile(
    r"\b(?:screen ?(?:save|saves|shot|shots|capture|captures|cap)?|secondary capture|posdisp"
    r"|key ?images?|processed images?|default ps series|exam summary|dose report|report|filming)\b"
)
_DIFFUSION = re.compile(
    r"\b(?:\w*dwi\w*|\w*dti|dwibs|diff|\w*diffu[sz]\w*|difu[sz]\w*|diffusione|dyfuz\w*"
    r"|ep2d\w*|epi|ivim|perf|\w*perfusi\w*|tensor)\b"
)
_MAP = re.compile(
    r"\b\w*map(?:s|ping|pen|pa)?\b|\bmapp[ae]\b|\bmapas?\b|\b\w*karten?\b|\bcartigram\w*"
    r"|\bcarte (?:t1|t2|phase|champ)\b"
)
_PHASE = re.compile(
    r"(?<!\w)(?<!\bin )(?<!\bopp )(?<!\bopposed )(?<!\bout )(?<!\bof )(?<!\bno )(?<!\bswap )"
    r"(?:phase|pha|phasen)(?! (?:ap|pa|rl|lr|hf|fh|si|is|a|p|r|l|h|f|over\w*|wrap|enc\w*|dir\w*"
    r"|swap|fov|corr\w*|contrast|encoding|shift|sensitive|\d+)\b)\b"
    r"|\bfield ?maps?\b|\bb[01] ?(?:map\w*|field)\b|\bfieldmaphz\b|\bimaginary\b|\breal part\b"
)
_FAT_OR_OPPOSED = re.compile(
    r"\bfat (?:only|image)\b|\bfatonly\b"
    r"|\b(?:opposed|opp|out of|out) ?phase\b|\b(?:m?dixon|ideal|flex)\b.*\b(?:f|fat|opp|op)$"
)

_FAT_PREFIX = re.compile(r"^\s*(?:fat|out ?phase|outofphase)\s*:")
"""GE prefixes the name of a computed Dixon image with its kind and a colon."""

LOCALISER_KINDS = frozenset({"LOCALIZER", "SCOUT", "SURVEY"})
# Values of ImageType, from the third on, of computed images and of phase images.
_COMPUTED_KINDS = vocabulary(
    "mpr reformatted reformat resampled curved mip minip mnip projection subtraction sub adc tracew"
    " map t1map t2map t2starmap r2 screen posdisp mean average collage cpr vrt ssd fit"
)
_PHASE_KINDS = vocabulary(
    "p phase pha ph phasemap r real i imaginary imag b0 b1 field fieldmap velocity unwrapped"
)
_OPPOSED_KINDS = vocabulary("f fat opp op opposed out outphase oop")
_IN_PHASE_KINDS = vocabulary("in ip inphase")

# Words of a DerivationDescription of an image that was only stored again, not computed.
_STORED_ANEW = re.compile(
    r"compress|\bloss(?:y|less)|jpe?g|j2k|jp2|wavelet|htj2k|\brle\b|transcod|de ?identif|anonym"
    r"|pseudonym|uncompressed predecessor|full fidelity|reencod|byte ?swap|burn"
)


def refusal_of(
    series: Series, *, many_echoes: bool = False, any_body_part: bool = False
) -> str | None:
    """Returns why a series can't be used, or None.

    Args:
        series: one stack.
        many_echoes: whether it is one of several echoes; a name like "T2 map" is then accepted.
        any_body_part: ignore BodyPartExamined.
    """
    first = series.first
    if first.modality not in ("MR", ""):
        return "not MR"
    if first.sop_class and first.sop_class not in MR_IMAGES:
        return "a screenshot or another kind of object, not an MR image"
    if first.samples != 1:
        return "a colour image, not grey values"
    if first.burned_in:
        return "annotations are burned into its pixels and may identify the patient"
    return (
        _named_localiser(first)
        or _computed(first, many_echoes=many_echoes)
        or other_part(first, tagged=not any_body_part)
        or _shaped_localiser(series)
        or unusable_reason(series)
        or _oblique(series)
        or _both_legs(series)
    )


def is_unsuitable_name(name: str) -> bool:
    """Returns whether a name alone shows that a series is a localiser or computed."""
    patterns = (_LOCALISER, _PLANNING, _COMPUTED, _SCREEN, _MAP, _PHASE)
    return any(pattern.search(name) for pattern in patterns)


def unusable_reason(series: Series) -> str | None:
    """Returns why a series can't become a stack even if the user requests it, or None."""
    if series.axes is None:
        return "its header doesn't state its orientation and position"
    sizes = series.first.pixel_mm
    if len(sizes) != 2 or not all(0.05 <= size <= 10.0 for size in sizes):
        return "its header doesn't state its pixel size"
    if series.first.samples != 1:
        return "a colour image, not grey values"
    return None


def _oblique(series: Series) -> str | None:
    _, angle = series.plane or (None, 0.0)
    if angle > MAX_OBLIQUE_DEGREES:
        return f"oblique: more than {MAX_OBLIQUE_DEGREES:.0f} degrees from every plane"
    return None


def _both_legs(series: Series) -> str | None:
    """Returns a reason if a sagittal stack is wide enough to show both legs, or None."""
    plane = series.plane
    if plane is None or plane[0] is not Plane.SAGITTAL or series.spacing_mm is None:
        return None
    if series.spacing_mm * len(series.images) > WIDEST_KNEE_MM:
        return f"a stack of both legs: wider than {WIDEST_KNEE_MM:.0f} mm from right to left"
    return None


def _named_localiser(image: Image) -> str | None:
    """Returns a reason if ImageType or a name identifies a localiser, or None."""
    names = [" ".join(words_of([name])) for name in image.names]
    by_name = any(map(_LOCALISER.search, names)) or _PLANNING.search(names[0])
    return "a localiser" if by_name or LOCALISER_KINDS & set(image.kind) else None


def _shaped_localiser(series: Series) -> str | None:
    """Returns a reason if geometry, timing or number of slices are a localiser's, or None."""
    first = series.first
    few = len(series.images) < FEW_SLICES
    if few and series.orientations > 1:
        return "a localiser: a few slices in several orientations"
    if series.planes > 1:
        return "a localiser: slices of several planes in one series"
    if (series.spacing_mm or 0.0) > MAX_SPACING_MM:
        return f"a localiser: slices more than {MAX_SPACING_MM:g} mm apart"
    if len(first.pixel_mm) == 2 and MAX_PIXEL_MM < max(first.pixel_mm) <= 10.0:
        row_mm, col_mm = first.pixel_mm
        if max(first.rows * row_mm, first.cols * col_mm) > WIDE_FIELD_MM:
            return f"a localiser: pixels wider than {MAX_PIXEL_MM:g} mm in a wide field"
    gradient = bool({"GR", "GRADIENT"} & set(first.technique)) and "SE" not in first.technique
    fast = first.tr_ms is not None and first.tr_ms < FAST_REPETITION_MS
    if gradient and fast and len(series.images) < MRNET_SLICES[0]:
        return f"a localiser: a fast gradient echo of fewer than {MRNET_SLICES[0]} slices"
    return None


def _computed(image: Image, *, many_echoes: bool) -> str | None:
    """Returns a reason if an image is computed, or isn't a magnitude image, or None."""
    kinds = [words_of([value]) for value in image.kind]
    kind = {word for words in kinds for word in words}
    phases = {word for words in kinds if not _IN_PHASE_KINDS & {*words} for word in words}
    names = [" ".join(words_of([name])) for name in image.names]
    name = names[0]
    prefixed = any(_FAT_PREFIX.search(normalised(name)) for name in image.names)
    if kind & _OPPOSED_KINDS or prefixed or any(map(_FAT_OR_OPPOSED.search, names)):
        return "derived from other images: Dixon's fat or opposed-phase image"
    phase = phases & _PHASE_KINDS or image.component or _PHASE.search(name)
    if phase:
        return "derived from other images: a phase image or a field map"
    if _DIFFUSION.search(name) or "EP" in image.technique or "diffusion" in kind:
        return "diffusion, perfusion or another echo-planar image"
    if kind & _COMPUTED_KINDS or _COMPUTED.search(name) or _SCREEN.search(name):
        return "derived from other images"
    if _MAP.search(name) and not many_echoes:
        return "derived from other images: a map"
    if "DERIVED" in image.kind and not WATER & set(image.kind) and not _stored_anew(image):
        return "derived from other images"
    return None


def _stored_anew(image: Image) -> bool:
    """Returns whether an image marked as DERIVED is an acquisition that was only stored again.

    Images compressed with loss must be marked as DERIVED (PS3.3 C.7.6.1.1.2), and anonymisers may
    do so. The second value is still PRIMARY, and the derivation mentions only such operations.
    """
    if "SECONDARY" in image.kind or image.sources > 1:
        return False
    if image.derivation:
        return bool(_STORED_ANEW.search(" ".join(words_of([image.derivation]))))
    return image.lossy or image.deidentified
