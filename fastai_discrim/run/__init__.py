"Run a plan: in one fit, from a checkpoint on, with a record of what came of it"
