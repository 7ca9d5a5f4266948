"Search for learning rates: the head's rate η_L on frozen features, the body's rate by short fits"
