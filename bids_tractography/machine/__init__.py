"""What the program stands on: files, processors, signals, compiled code."""
