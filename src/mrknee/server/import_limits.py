"""Limits of the process that imports an uploaded archive of DICOM files."""

SECONDS = 60
"""Maximum time of an import; a study of three series takes a few seconds."""

MEMORY = 4 * 2**30
"""Maximum address space in bytes, libraries included."""

FILE_BYTES, OPEN_FILES = 512 * 2**20, 256
"""Maximum size of a written file, and number of open files."""
