"""Synthetic knees: one 3-D anatomy per exam with known lesions, acquired in three planes."""

from mrknee.sources.phantom.exam import Phantom, PhantomExam, make_phantom, render_exam
from mrknee.sources.phantom.lesions import Truth

__all__ = ["Phantom", "PhantomExam", "Truth", "make_phantom", "render_exam"]
