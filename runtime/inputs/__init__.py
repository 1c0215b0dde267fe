"""Where triggers come from: the kinds of `--trigger`, each behind the same protocol."""
