"""Evaluation: compares predictions with labels and reports uncertainty. Doesn't depend on torch.

Modules, in reading order:

- `predictions`: the table that `predict` writes; reading it and joining it to labels by exam id.
- `discrimination`: the AUC of one finding with its 95 % interval (`auc`), and DeLong's covariance
  of the AUCs of several models on the same exams (`delong_covariance`).
- `proportions`: proportions of exams with Wilson's interval.
- `resampling`: the mean AUC over findings, with an interval by stratified bootstrap of the exams.
- `calibration`, `reliability`: fitting and applying calibration; Brier score and calibration error.
- `operating_point`: thresholds, with their sensitivity, specificity, PPV and NPV.
- `decisions`: calibration and operating points, as stored with a model.
- `curves`: ROC curve with its confidence band; precision-recall curve.
- `scorecard`: all scores of a model on one split, as `scorecard.json` and as a table.
- `paired_tests`, `auc_differences`, `comparison`: comparison of several models on the same exams.
- `folds`, `hierarchical`, `arms`, `arm_calibration`: comparison of an experiment's arms.
- `plot`: figures of scorecards, comparisons and ROC curves.
- `json_values`, `formatting`: conversion of results to JSON and back, and to plain text.

A number that can't be computed is NaN (null in JSON), with a reason.

Importing this package imports none of its modules, to keep the start of a prediction fast.
"""
