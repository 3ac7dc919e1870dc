"""Operating system and hardware: files, processors, signals and compiled code."""
