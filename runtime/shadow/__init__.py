"""A candidate judges the same frames in a process of its own, is compared, promoted, and taken back."""
