"""Whether a data set is whole: every file of its five stages, read and compared (check_data.py)."""
