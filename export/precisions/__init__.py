"""FP16 and INT8 in the graph: ranges, what is left out, what it costs."""
