"""From raw scans to frames and clips: what the readers of all data sets share (method, sections 2 and 3)."""
