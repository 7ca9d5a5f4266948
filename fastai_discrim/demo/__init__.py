"Demos: docstrings as a corpus that needs no download, a pretrained transformer on few of them, and ULMFiT from beginning to end"
