"""Exact graph rewrites, one small file each, in the order in which they apply."""

from export.passes import (
    affine_into_permutation,
    condition_to_bias,
    drop_last_permutation,
    merge_log_determinants,
    permutation_into_gather,
    scale_into_subnet,
)

REWRITES = (
    condition_to_bias.REWRITE,
    drop_last_permutation.REWRITE,  # before the affine makes the matrix non-orthogonal
    permutation_into_gather.REWRITE,
    affine_into_permutation.REWRITE,
    scale_into_subnet.REWRITE,
    merge_log_determinants.REWRITE,
)
