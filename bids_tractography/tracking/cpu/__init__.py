"""Our own engine: tracking on the CPU, in compiled code."""
