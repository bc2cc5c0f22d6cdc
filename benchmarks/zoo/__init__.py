"""Fold every architecture of timm and torchvision that holds a batch-norm. See `__main__`."""
