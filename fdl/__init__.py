"Foundations of Deep Learning: a small library that mirrors PyTorch, made from the course's notebooks."
from importlib.metadata import version

__version__ = version("fdl")
