"""The ground floor: data sets, files, conditions and training; nothing here knows a model."""

import os

# What OpenCV and its ffmpeg print about a damaged file says less than the error that names it.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
