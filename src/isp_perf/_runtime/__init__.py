"""What differs between threads, tasks and processes, and nothing else."""
