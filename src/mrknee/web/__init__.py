"""SERVE: a trained model behind HTTP, one exam a request.

- `serving`: opens the model, listens, ends when told to.
- `app`: which address answers what; every fault in one form.
- `uploads`: from a request's body to an exam: bounded, and nothing of it stays.
- `refusal`: what a request gets that can't be answered.
- `desk`: one exam at a time, and so many waiting.
- `service`: an exam to an answer.
- `schemas`: what is answered, field by field (`/openapi.json`).
- `index.html`: the start page.

Nothing here loads anything from elsewhere, or reports to anybody.
"""
