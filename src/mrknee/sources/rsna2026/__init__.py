"""RSNA's data set of 2026 (Knee Abnormality Detection): from its folder to a data set.

- `tables`: its tables of studies and series, and label tables that others made from the reports.
- `study`: reading of one study: series by header and table, the knee that is labelled.
- `importing`: all studies of the folder; labels, groups and sides; resumable.
- `summary`: what was imported and what was left out, as text.
"""
