"""The record of a line: what was judged, by what, and what was changed, in a database that outlives a power cut."""
