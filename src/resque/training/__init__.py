"""Recipe, job, training loop, cost tracking, stopping rule and measured retraining."""
