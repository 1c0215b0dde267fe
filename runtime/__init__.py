"""Judge frames with an exported engine; imports no torch."""
