"""What operators' marks say of an engine, and what would be better: a threshold, a mask. Never in the line itself."""
