"""Recipes: by name, what judges a frame and how; and which of them is in force."""
