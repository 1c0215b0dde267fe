"""A detector trained on from its old weights, with the good parts that it called anomalous."""
