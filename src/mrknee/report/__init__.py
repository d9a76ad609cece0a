"""WHAT A PERSON SEES: the page of an evaluation, and the page of one exam.

- `evaluation`: predictions and labels -> scorecard.json and report.html.
- `contents`: what that page shows; `cohort`, `gallery`: two parts of it, gathered.
- `page`, `report.html`, `report.css`: contents -> HTML; `sentences`, `words`: results and numbers
  as text; `templates`: Jinja2.
- `figures`, `plot`: inline SVG.
- `cards`, `model_card.md`, `data_card.md`: contents -> Markdown for a model and a data set.
- `published`: what others have stated; `claim`: the CLAIM 2024 checklist.
- `pictures`: heat maps over slices.
- `exam_page`, `exam.html`: why one exam was read as it was.
"""
