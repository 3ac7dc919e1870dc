"""The file formats of tractograms."""
