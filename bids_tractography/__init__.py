"""Reproducible whole-brain tractography of BIDS datasets."""

__version__ = "0.1.0"
