"""Exact graph rewrites, one small file each, in the order in which they apply."""

from typing import Literal

from export.passes import (
    affine_before_coupling,
    affine_into_permutation,
    condition_to_bias,
    drop_last_permutation,
    fibers_into_images,
    halves_of_coupling,
    maps_as_products,
    merge_log_determinants,
    norm_of_parts,
    normalisation_into_stem,
    permutation_into_gather,
    scale_into_subnet,
    separate_halves,
)
from export.passes.rewrite import Rewrite

Layout = Literal["convolution", "gemm"]
LAYOUTS: tuple[Layout, ...] = ("convolution", "gemm")

_REWRITES = (
    normalisation_into_stem.REWRITE,
    condition_to_bias.REWRITE,
    norm_of_parts.REWRITE,  # which leaves the last permutation in front of a norm alone
    drop_last_permutation.REWRITE,  # before the affine makes the matrix non-orthogonal
    permutation_into_gather.REWRITE,
    affine_into_permutation.REWRITE,
    scale_into_subnet.REWRITE,
    merge_log_determinants.REWRITE,
    separate_halves.REWRITE,
    affine_before_coupling.REWRITE,
    halves_of_coupling.REWRITE,
    maps_as_products.REWRITE,
)


def rewrites(layout: Layout = "convolution") -> tuple[Rewrite, ...]:
    """Return every rewrite in order; "gemm" leaves the decoders' products on (positions, channels)."""
    return (*_REWRITES, fibers_into_images.REWRITE) if layout == "convolution" else _REWRITES
