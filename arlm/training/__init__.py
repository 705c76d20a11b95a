"""Training: the Lightning module, callbacks, optimizers and learning-rate schedules."""
