"""Derivatives: file names, atomic writing, locks, sidecars and provenance."""
