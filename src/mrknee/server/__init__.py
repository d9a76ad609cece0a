"""HTTP service for a trained model: one exam per request.

In reading order:

- `serving`: opens the model, listens, shuts down on a signal.
- `protocol`: HTTP/1.1 connections and their limits.
- `middleware`: checks of every request: id (`request_id`), Host and Origin, HEAD, proxy path.
- `app`: routes, and the conversion of every error to an error response (`refusal`).
- `arrivals`: receives request bodies.
- `uploads`: parses a request body into an exam.
- `request_queue`: processes one exam at a time; limits the number of waiting exams.
- `service`: computes predictions and explanations of an exam.
- `schemas`: fields of the responses (`/openapi.json`).
- `audit`, `metrics`: audit log and Prometheus metrics.
- `index.html`: the start page.

The service loads no external resources and sends no telemetry.
"""
