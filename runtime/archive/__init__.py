"""Whole archives judged again: what is in one, its shards, the processes that judge, the Parquet that comes of it."""
