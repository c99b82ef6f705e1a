"""How good synthetic clips are: scores, comparisons with real ones, and the filter."""
