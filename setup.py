"Hands the metadata in settings.ini to setuptools."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here/"settings.ini", encoding="utf-8")
meta = config["DEFAULT"]
extras = {key.removesuffix("_requirements"): value.split()
          for key, value in meta.items() if key.endswith("_requirements")}

setup(
    version=meta["version"],
    description=meta["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=meta["author"],
    license_expression=meta["license"],
    license_files=["LICENSE"],
    keywords=meta["keywords"],
    classifiers=["Programming Language :: Python :: 3", "Intended Audience :: Education",
                 "Topic :: Scientific/Engineering :: Artificial Intelligence"],
    python_requires=f">={meta['min_python']}",
    packages=["fdl", "fdl.optim"],
    install_requires=meta["requirements"].split(),
    extras_require=extras,
)
