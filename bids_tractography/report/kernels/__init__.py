"""Compiled parts of the report."""
