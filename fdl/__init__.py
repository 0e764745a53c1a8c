"Foundations of Deep Learning: a small library that mirrors PyTorch, made from the course's notebooks."
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version("fdl")
except PackageNotFoundError:  # used from a clone of the course that was never installed
    from configparser import ConfigParser
    from pathlib import Path
    _settings = ConfigParser()
    _settings.read(Path(__file__).parents[1]/"settings.ini", encoding="utf-8")
    __version__ = _settings.get("DEFAULT", "version", fallback="unknown")
