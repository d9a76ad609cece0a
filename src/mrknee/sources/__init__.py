"""Sources of exams: synthetic knees, DICOM studies and NIfTI volumes."""
