"""What is on disk: names, atomic writes, verified reads, claims, commits, and the mappings over them."""
