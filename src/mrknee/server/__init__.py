"""HTTP service for a trained model: one exam per request, and the page for browsers.

In reading order:

- `serving`: opens the model, listens, shuts down on a signal.
- `protocol`: HTTP/1.1 connections and their limits.
- `middleware`: checks of every request: id (`request_id`), Host and Origin, HEAD, proxy path.
- `app`: routes, and the conversion of every error to an error response (`refusal`).
- `arrivals`: receives request bodies.
- `uploads`: parses a request body into an exam.
- `request_queue`: processes one exam at a time; limits the number of waiting exams.
- `service`: computes predictions and explanations of an exam.
- `api`: routes of /api/v1, which the page uses:
  - `worklist`: the exams of data sets and uploads, sorted and filtered.
  - `exam_reader`: reads exams, stacks by hash (`read_exam`) and masks; `geometry`: spacing and
    orientation.
  - `results`: predictions and explanations, once per exam, and in the background; `lru`: caches.
  - `exam_uploads`: uploads; `dicom_import`, `dicom_process`: those of DICOM.
  - `notes`: readers' notes in an SQLite file.
  - `conditional`: compressed responses with ETags; `json_body`: small JSON bodies.
- `access`: token.
- `schemas`, `api_schemas`: fields of the responses (`/openapi.json`).
- `page_files`: the files in `page`.
- `audit`, `metrics`: audit log and Prometheus metrics.
- `upload.html`: page with an upload form, without scripts.

The service loads no external resources and sends no telemetry.
"""
