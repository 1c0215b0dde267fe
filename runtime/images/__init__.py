"""Pictures: what of a frame is judged, how it is resized, where a map is anomalous, how that is drawn."""
