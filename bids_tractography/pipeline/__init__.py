"""The processing of one DWI run, from its image to a tractogram."""
