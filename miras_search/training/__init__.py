"""One training: data order, optimiser, schedule, evaluation, checkpoint."""
