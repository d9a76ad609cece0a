"""mrknee reads knee MRI exams with one multi-task network."""

__version__ = "0.1.0"
