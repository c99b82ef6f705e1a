"""Training that can be trusted: one `Trainer`, exact resume, any number of processes (docs/training.md)."""
