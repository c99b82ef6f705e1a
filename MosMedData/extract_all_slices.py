"""Step (a) for MosMedData: chest CT volumes to slices, with the published split."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.preprocessing.readers.mosmed import READER

if __name__ == "__main__":
    steps.run(READER.main)
