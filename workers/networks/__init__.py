"""PyTorch modules, imported only for training and export: serving processes never load torch."""
