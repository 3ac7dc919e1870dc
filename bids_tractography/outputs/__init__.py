"""Names and places of what is written, and writing that leaves nothing half done."""
