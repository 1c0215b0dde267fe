"""The training loop: shuffled fibers, steps, rates, processes."""
