"""The evaluation as one HTML page, the mistakes first."""
