"""Measure on this machine what the paper's Table 6 measured: `python -m runtime.report`."""
