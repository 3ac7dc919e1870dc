"""Digital phantom: one head with five known bundles, written as a small raw BIDS dataset."""

from bids_tractography.phantom.anatomy import (
    Bundle,
    Composition,
    Ellipsoid,
    Phantom,
    connected_bundles,
    make_phantom,
)
from bids_tractography.phantom.dataset import write_phantom
from bids_tractography.phantom.scan import (
    SINGLE_SHELL,
    TWO_SHELLS,
    GradientScheme,
    ScanGrid,
    fsl_bvecs,
    gradient_scheme,
    simulate_dwi,
    voxelise,
    write_dwi,
    write_t1w,
    write_tissue,
)

__all__ = [
    "SINGLE_SHELL",
    "TWO_SHELLS",
    "Bundle",
    "Composition",
    "Ellipsoid",
    "GradientScheme",
    "Phantom",
    "ScanGrid",
    "connected_bundles",
    "fsl_bvecs",
    "gradient_scheme",
    "make_phantom",
    "simulate_dwi",
    "voxelise",
    "write_dwi",
    "write_phantom",
    "write_t1w",
    "write_tissue",
]
