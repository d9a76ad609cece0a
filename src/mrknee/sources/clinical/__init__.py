"""Import of clinical studies: DICOM and NIfTI files become stacks in MRNet's layout.

One module per step, in the order in which a study passes through them:

    locate.py        finds and opens every file of a folder, an archive or a DICOMDIR
    archives.py      checks zip and tar archives before they are read
    dicomfile.py     parses one DICOM file, with or without preamble and meta information
    quickfile.py     reads the headers of ordinary DICOM files without pydicom
    header.py        extracts one header per image from a DICOM file
    scanning.py      reads all headers of a source and lists the files that can't be read
    other_files.py   files that are neither DICOM nor NIfTI: which should have been images
    directory.py     images that a DICOMDIR lists and that are missing
    geometry.py      plane and orientation of a stack
    series.py        groups images into stacks of parallel slices, sorted by position
    joining.py       joins stacks that continue each other although their headers differ
    words.py         normalises descriptions to words that can be compared
    anatomy.py       body part and side
    contrast.py      weighting and fat suppression
    refusals.py      series that can't be used: localisers, maps, other body parts
    protocol.py      candidates, and the rule that chooses one for each declared series
    knees.py         groups images by study, patient and knee
    nifti_names.py   the same for NIfTI, from file names and JSON sidecars
    pixels.py        decodes the grey values of a chosen series
    stored_values.py stored values -> real values: bits, sign, padding, rescale
    mosaic.py        detects several slices in one image
    nifti.py         orientation and grey values of NIfTI files
    framing.py       crops around the joint, resizes, scales to 0..255
    study.py         one study -> stacks and the record of the choice
    completeness.py  slices, images and series that an exam lacks
    digest.py        digest of the content that an exam was read from
    writing.py       writes exams in worker processes, each with its record
    importing.py     imports all studies of a source into a folder, with new ids
    single.py        reads one study as an `Exam`, without writing anything

docs/reference/import-rules.md states the rules in full.
"""
