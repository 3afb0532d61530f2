"""What forward passes tell: RESQUE_dist, RESQUE_task, baselines and the features of an update."""
