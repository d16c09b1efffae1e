"""Networks that other programs wrote: the authors' in TensorFlow, NVlabs' and rosinality's in PyTorch."""
