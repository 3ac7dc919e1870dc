"""Translation of pyAFQ configurations."""
