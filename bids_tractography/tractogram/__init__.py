"""Tractograms on disk: the store of finished batches, and the files made from it."""
