"""Brain masks, region masks and tissue fractions."""
