"""What a detector says of labelled images: scores, figures, thresholds, tables."""
