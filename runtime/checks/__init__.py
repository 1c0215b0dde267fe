"""Reference parts: known good and bad ones that must come out as they were recorded, or the line has no verdict."""
