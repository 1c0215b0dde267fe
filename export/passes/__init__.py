"""Exact graph rewrites, one small file each."""
