"""The participant and group levels: planning jobs, running them, and writing the dataset."""
