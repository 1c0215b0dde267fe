"""Checkpoints of other CFLOW-AD implementations: what they hold and leave out, and proof of what becomes of it."""
