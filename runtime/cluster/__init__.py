"""Ray and Dask, of this machine alone or of many: opened, measured, and refused where they would hang."""
