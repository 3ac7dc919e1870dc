"""Tractograms on disk: the batch store, file formats, import and summaries."""
