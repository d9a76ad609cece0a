"""USE: a trained model on exams.

- `predictor`: exams -> probabilities, from a run folder.
- `submission`: the MRNet competition's interface.
"""
