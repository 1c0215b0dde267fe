"""Data folders: their layouts, and the synthetic cables."""
