"""Step (b) for MosMedData: slices to clips of 8 frames (method, section 3)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.preprocessing.clips import main

if __name__ == "__main__":
    steps.run(lambda: main(datasets.get("MosMed"), "MosMedData/sample_sequences.py"))
