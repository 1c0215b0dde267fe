"""The network that `train` fits and `export` ships: encoder, conditional flows, score."""
