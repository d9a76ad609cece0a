"""Exams from a hospital's export: DICOM and NIfTI studies become stacks in MRNet's layout.

A study's way, a file a step:

    locate.py     every file of a folder, an archive or a DICOMDIR, opened without trusting it
    archives.py   zips and tars, checked before they are read
    dicomfile.py  one DICOM file, with or without its head
    header.py     one DICOM file's header -> what each of its images says of itself
    scanning.py   all headers of a source, and which files could not be read
    strange.py    files that are no images: which should have been
    directory.py  what a DICOMDIR lists and is not there
    geometry.py   which plane, which way round
    series.py     images -> stacks of parallel slices in the order of their positions
    joining.py    stacks that continue each other though their headers differ
    words.py      descriptions as words that can be compared
    anatomy.py    which body part, which knee
    contrast.py   which weighting, and whether fat is suppressed
    refusals.py   what can't stand for a plane: localisers, maps, other parts
    protocol.py   what a series is, and the rule that chooses one for a plane
    knees.py      which images are of one knee: by study, patient and side
    nifti_names.py  the same for NIfTI, by names and sidecars
    pixels.py     a chosen series' grey values: decoders
    stored.py     stored values as real ones: bits, sign, padding
    mosaic.py     several slices in one image
    lacking.py    slices that should be there and are not
    nifti.py      the same from NIfTI
    framing.py    upright, the joint in the middle, 256 x 256 bytes
    study.py      one study -> stacks, and what is to be said about it
    content.py    a digest of what an exam was made from
    importing.py  all studies, with ids of their own, into a folder

docs/reference/import-rules.md has the rules in full.
"""
