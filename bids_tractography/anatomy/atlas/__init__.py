"""Where the atlas of tissue is; README.md has its origin and licences."""

from pathlib import Path

ATLAS_FILE = Path(__file__).with_name("icbm152_tissue_2mm.nii.gz")
