"""Data sets that a user's own data file describes: from raw files of any usual kind to frames and clips."""
