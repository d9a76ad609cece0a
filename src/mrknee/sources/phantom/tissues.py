"""Properties of the knee's tissues, and their signals.

Sources of T1 and T2 at 1.5 T and 3 T, with the checks of each value. The papers' own tables were
not available; "dictionary" is a public table of tissues on GitHub that quotes them with their
standard deviations.

- Muscle, cartilage, fluid, subcutaneous fat, marrow: Gold et al., "Musculoskeletal MRI at 3.0 T:
  relaxation times and image contrast", AJR 2004;183:343-351. Muscle and cartilage agree with the
  values the dictionary quotes from the authors' abstract of the same work (Han et al., ISMRM 2003,
  no. 450); the T1 of both fats and the T2 of subcutaneous fat with those it quotes from the AJR
  tables, the T2 of marrow fat with its mention of them. Fluid (T1 2850 and 3620, T2 1210 and 767)
  is from memory; no source was found.
- Blood, T1: Stanisz et al., "T1, T2 relaxation and magnetization transfer in tissue at 3T", MRM
  2005;54:507-512. Agrees with the dictionary and with the fetal XCAT simulator's table.
- Nerve: Stanisz's optic nerve, from memory; not found elsewhere.
- Meniscus, T2 at 3 T: Rauscher et al., "Meniscal measurements of T1rho and T2 at MR imaging",
  Radiology 2008;249:591-600; 11.4 +- 3.9 ms in healthy knees, from its abstract.

All other values (such as those of the meniscus at 1.5 T, its T1, and the T2 of blood), and all
proton densities (relative to fluid), were chosen by us so that the contrasts between tissues are
those of clinical images: diseased tissue lies between healthy tissue and fluid, deep fat is fat
with a little fibrous tissue, vessels have the signal that flow leaves. Contused marrow keeps a part
of its fat, so that its T1-weighted signal is that of marrow. The dephasing by trabecular
bone was chosen by us too: it makes the T2* of marrow 15 ms at 1.5 T, so that bone is dark in
gradient echoes as in clinical images. Other tissues have none, since the phantom's field is
uniform. Measured T2 of fat depends on the sequence: at 3 T 133 ms here, 68 ms elsewhere (de
Bazelaire 2004, as quoted by the dictionary).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, exp, radians, sin


@dataclass(frozen=True)
class Tissue:
    """One tissue at both field strengths.

    Attributes:
        density: proton density relative to fluid, 0..1.
        t1: T1 in ms at 1.5 T and 3 T.
        t2: T2 in ms at 1.5 T and 3 T.
        fat: fraction of the signal that comes from fat and is removed by fat saturation, 0..1.
        dephasing: additional decay rate of a gradient echo (R2'), 1/s at 1.5 T; twice that at 3 T.
    """

    density: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    fat: float = 0.0
    dephasing: float = 0.0


TISSUES: dict[str, Tissue] = {
    "subcutaneous fat": Tissue(0.95, (288, 371), (165, 133), 1.0),
    "deep fat": Tissue(0.80, (300, 385), (150, 122), 0.93),
    "marrow": Tissue(0.72, (288, 365), (165, 133), 0.92, 60.0),
    "red marrow": Tissue(0.70, (480, 600), (95, 85), 0.62, 60.0),
    "muscle": Tissue(0.78, (1130, 1420), (35.3, 31.7)),
    "cartilage": Tissue(0.76, (1060, 1240), (42.1, 36.9)),
    "fluid": Tissue(1.00, (2850, 3620), (1210, 767)),
    "skin": Tissue(0.45, (900, 1050), (28, 26), 0.2),
    "cortex": Tissue(0.10, (250, 300), (1.0, 1.0)),
    "tendon": Tissue(0.42, (600, 700), (7, 6)),
    "ligament": Tissue(0.50, (800, 950), (15, 13)),
    "loose ligament": Tissue(0.70, (900, 1100), (42, 38), 0.25),
    "meniscus": Tissue(0.50, (850, 1000), (12, 11.4)),
    "mucoid": Tissue(0.70, (950, 1100), (30, 27)),
    "synovium": Tissue(0.75, (700, 900), (55, 48), 0.35),
    "fascia": Tissue(0.45, (600, 700), (14, 13), 0.1),
    "nerve": Tissue(0.60, (815, 1083), (77, 78), 0.45),
    "slow blood": Tissue(0.50, (1441, 1932), (75, 65)),
    "flowing blood": Tissue(0.12, (1441, 1932), (60, 50)),
    "torn ligament": Tissue(0.85, (1150, 1350), (95, 85)),
    "tear fluid": Tissue(0.92, (1500, 1800), (210, 180)),
    "oedema": Tissue(0.88, (1150, 1350), (120, 105), 0.12, 60.0),
    "contused marrow": Tissue(0.95, (520, 650), (140, 120), 0.30, 60.0),
    "soft-tissue oedema": Tissue(0.90, (1200, 1400), (110, 95)),
    "thick synovium": Tissue(0.80, (1000, 1200), (48, 42)),
    "fracture line": Tissue(0.35, (900, 1050), (30, 27)),
}


def spin_echo(
    tissue: Tissue,
    *,
    tesla: float,
    repetition_ms: float,
    echo_ms: float,
    fat_left: float = 1.0,
) -> float:
    """Returns the spin-echo signal density * (1 - exp(-TR / T1)) * exp(-TE / T2), arbitrary units.

    Args:
        tissue: the tissue.
        tesla: 1.5 or 3.0.
        repetition_ms: TR in ms.
        echo_ms: effective TE in ms.
        fat_left: share of the fat signal left by fat saturation: 1 without it, near 0 with it.
    """
    field = 0 if tesla < 2 else 1
    recovery = 1.0 - exp(-repetition_ms / tissue.t1[field])
    decay = exp(-echo_ms / tissue.t2[field])
    visible = 1.0 - tissue.fat * (1.0 - fat_left)
    return tissue.density * recovery * decay * visible


def gradient_echo(
    tissue: Tissue,
    *,
    tesla: float,
    repetition_ms: float,
    echo_ms: float,
    flip_degrees: float,
    fat_left: float = 1.0,
) -> float:
    """Returns the steady-state signal of a spoiled gradient echo, arbitrary units.

    density * sin(a) (1 - E1) / (1 - cos(a) E1) * exp(-TE / T2*), with E1 = exp(-TR / T1) and
    1 / T2* = 1 / T2 + the tissue's dephasing.

    Args:
        tissue: the tissue.
        tesla: 1.5 or 3.0.
        repetition_ms: TR in ms.
        echo_ms: TE in ms.
        flip_degrees: flip angle a.
        fat_left: share of the fat signal left by fat saturation: 1 without it, near 0 with it.
    """
    field = 0 if tesla < 2 else 1
    left = exp(-repetition_ms / tissue.t1[field])
    angle = radians(flip_degrees)
    recovery = sin(angle) * (1.0 - left) / (1.0 - cos(angle) * left)
    rate = 1.0 / tissue.t2[field] + tissue.dephasing / 1000.0 * (field + 1)
    visible = 1.0 - tissue.fat * (1.0 - fat_left)
    return tissue.density * recovery * exp(-echo_ms * rate) * visible
