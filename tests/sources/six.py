"""Six series in three planes, as in many knee examinations."""

from __future__ import annotations

from mrknee.exams import Series, SeriesList

SIX = SeriesList(
    [
        Series("sag_pd_fs", "sagittal", "PD", True),
        Series("sag_pd", "sagittal", "PD", False),
        Series("cor_pd_fs", "coronal", "PD", True),
        Series("cor_t1", "coronal", "T1", False),
        Series("ax_pd_fs", "axial", "PD", True),
        Series("ax_t2", "axial", "T2", False),
    ]
)
