"""The word that an engine is promoted by in spite of what speaks against it; importing this loads no library."""

ANYWAY = "anyway"

PICTURE_WIDTH = 480  # pixels of a disagreement's picture
