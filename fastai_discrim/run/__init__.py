"Run a plan in one fit, resume it from a checkpoint, and record its results"
