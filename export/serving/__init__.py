"""A model repository for a Triton server: its configuration as text, its versions, its Python model."""
