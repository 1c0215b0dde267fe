"""Drift: what the frames of a source are like, held over hours against what they were like after the start."""
