"""The gauge study of the score: how much of its spread is the measuring, and how much the parts."""
