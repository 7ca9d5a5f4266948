"Demos: docstrings as a corpus that needs no download, a pretrained transformer with few labels, and ULMFiT from start to end"
