"""``python -m benchmarks NAME``: run one benchmark; without a name, say which there are."""

from __future__ import annotations

import runpy
import sys

NAMES = {
    "walk": "random walk against dense squaring and plain sparse products",
    "crf": "dense CRF against pydensecrf",
    "search": "a configuration of the search against labeling again",
    "authors": "labeling against the authors' way, same weights and images",
    "pipeline": "jobs.label against a plain loop over the same stages",
    "training": "learning on two workers against one, and the share of waiting",
    "confidence": "how well the confidence foretells the IoU; no ratio",
    "chaos": "deaths over one labeling run; no ratio",
}


def main() -> int:
    """Hand the command line on to the benchmark."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        lines = [f"  {one:10} {what}" for one, what in NAMES.items()]
        print("\n".join(["usage: python -m benchmarks NAME [--help]", "", *lines]), file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    del sys.argv[1]
    sys.argv[0] = f"benchmarks.{name}"
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
