"""Where every yes or no, and every fraction of a voxel, comes from: brain, masks, tissue."""
