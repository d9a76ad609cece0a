"""Peak memory of one process that trains on a data set, or predicts it; speed.py runs it.

python benchmarks/memory.py train|predict DATA MODEL.onnx

Training has a small network, so that two thousand exams of MRNet's size take a minute and not an
hour: what could grow with their number is the bookkeeping, which is the same for any network.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

SMALL = {
    "network.encoder": "test_resnet",
    "weights": "none",
    "preparation.size": 256,
    "preparation.crop": 64,
    "epochs": 1,
    "batch_exams": 1,
    "loggers": [],
}


def main() -> None:
    """Prints the peak in MB."""
    what, data, model = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if what == "train":
        from mrknee.training.recipe import load_recipe
        from mrknee.training.run import train

        with TemporaryDirectory() as out:
            train(data, Path(out) / "run", load_recipe("reference", SMALL))
    else:
        from mrknee.inference.model import open_exams, open_model

        open_model(model).predict(open_exams(data, "valid"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
