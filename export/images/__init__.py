"""The images that precisions are compared on: good ones, labelled ones, their masks."""
