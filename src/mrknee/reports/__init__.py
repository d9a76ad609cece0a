"""HTML reports: the evaluation report of predictions, and the explanation page of one exam.

- `evaluation`: predictions and labels -> scorecard.json and report.html.
- `contents`: the data of the evaluation report; `cohort` and `gallery` compute two parts of it.
- `page`, `report.html`, `report.css`: contents -> HTML; `sentences`, `words`: results and numbers
  as text; `templates`: Jinja2 environment.
- `figures`, `plot`: figures as inline SVG.
- `cards`: model card and data-set card.
- `published`: what others have stated; `claim`: the items of the CLAIM 2024 checklist that a
  run's record answers.
- `pictures`: heat maps on slices, contact sheets.
- `exam_page`, `exam.html`: the explanation page of one exam.
"""
