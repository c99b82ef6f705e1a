"""Does it help? Classifiers with and without synthetic clips, beside every rival a user would try first."""
