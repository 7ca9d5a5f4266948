"Searches for learning rates: the head's rate η_L, by fine-tuning the head on frozen features"
