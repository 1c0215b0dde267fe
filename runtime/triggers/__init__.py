"""What asks for a verdict: one trigger, one frame, one answer."""
