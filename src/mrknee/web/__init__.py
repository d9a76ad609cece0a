"""SERVE: a trained model behind HTTP, one exam a request.

- `serving`: opens the model, listens, ends when told to.
- `protocol`: a connection: HTTP/1.1, and its limits.
- `gate`: every request: its id (`request_id`), whom it is addressed to, HEAD, the path of a proxy.
- `app`: which address answers what; every fault in one form.
- `arrivals`: bodies on their way in.
- `uploads`: from a whole body to an exam, and nothing of it stays.
- `refusal`: what a request gets that can't be answered.
- `desk`: one exam at a time, and so many waiting.
- `audit`, `metrics`: what is recorded and counted.
- `service`: an exam to an answer.
- `schemas`: what is answered, field by field (`/openapi.json`).
- `index.html`: the start page.

Nothing here loads anything from elsewhere, or reports to anybody.
"""
