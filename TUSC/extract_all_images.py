"""Step (a), first part, for TUSC: ultrasound frames cropped to their nodule."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.preprocessing.readers.tusc import IMAGES

if __name__ == "__main__":
    steps.run(IMAGES.main)
