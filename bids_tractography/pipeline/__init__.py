"""One DWI run, from its image to a tractogram; see `process`."""
