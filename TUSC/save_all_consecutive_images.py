"""Step (a), second part, for TUSC: of each nodule the frames that follow one another."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.preprocessing.readers.tusc import CONSECUTIVE

if __name__ == "__main__":
    steps.run(CONSECUTIVE.main)
