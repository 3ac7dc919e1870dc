"""Configurations of pyAFQ, translated into ours."""
