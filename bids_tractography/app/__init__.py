"""The participant and the group level: from a request to jobs, and from jobs to a dataset."""
