"""The report of a run: one self-contained page, made from derivatives and sidecars alone."""
