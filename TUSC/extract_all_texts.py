"""Step (a), third part, for TUSC: the nodules' descriptions from their TI-RADS codes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.preprocessing.readers.tusc import texts_main

if __name__ == "__main__":
    steps.run(texts_main)
