"""From an engine's file to a session that judges batches: sidecar, thresholds, and a session for every library."""
