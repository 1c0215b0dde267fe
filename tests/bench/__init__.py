"""What the code beside the network costs, in this checkout and in another one, in turn: python -m tests.bench."""
