"""Training: the trainer, experiments, schedulers, averages, progress and logs."""
