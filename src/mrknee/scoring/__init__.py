"""HOW GOOD: predictions against labels, and how sure that is. numpy, scipy, scikit-learn; no torch.

- `predictions`: the table that `predict` writes, read and joined to labels by exam id.
- `proportions`: a share of exams with Wilson's interval.
- `discrimination`: one finding's AUC with its 95 % interval (`auc`), and DeLong's covariance of
  several models' AUCs on the same exams (`delong_covariance`).
- `resampling`: the mean AUC over findings, its interval by a stratified bootstrap of the exams.
- `paired`, `differences`, `comparison`: do models differ on the same exams?
- `calibration`, `reliability`: probabilities made right, and how right they are.
- `operating_point`: thresholds, and sensitivity, specificity, PPV, NPV at them.
- `decisions`: calibration and operating points, as a model carries them.
- `curves`: ROC with its band, precision-recall.
- `localisation`: does a heat map hit a lesion that is known?
- `scorecard`: all of a model on one split as one frozen object: `scorecard.json` and a table.
- `plain`, `text`: results to JSON and back, and as plain text.

A number that can't be computed is NaN (null in JSON) with its reason, never a made-up value.

Importing this package imports none of them, so that a prediction starts quickly.
"""
