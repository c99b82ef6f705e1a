"""What tables and folders call the two splits."""

SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "valid": "test", "val": "test",
    "validation": "test", "dev": "test", "holdout": "test",
}  # fmt: skip
VALIDATION = ("valid", "val", "validation", "dev")
