"""The methods that the paper's Table 6 compares with, written plainly, so that one machine can time them all."""
