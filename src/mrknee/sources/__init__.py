"""Where exams come from: synthetic knees, DICOM studies, NIfTI volumes."""
