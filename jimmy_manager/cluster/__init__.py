"""Workers on a cluster: submission to Slurm, and what the file systems of its nodes promise each other."""
