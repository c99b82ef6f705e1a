"""Step (a) for MRNet: sagittal knee MR series to slices."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.preprocessing.readers.mrnet import READER

if __name__ == "__main__":
    steps.run(READER.main)
