"A demo that needs no download: docstrings as a corpus, and ULMFiT on it from beginning to end"
