"""Reproducible whole-brain tractography of BIDS datasets."""

__version__ = "0.1.0"

BIDS_VERSION = "1.11.1"
"""Version of the BIDS specification that written datasets follow."""
