"ULMFiT's way of fine-tuning, as fastai callbacks, splitters and plans"
__version__ = '0.1.0'
