"""Everything is in setup.cfg, save what it cannot say: the packages that are found, plus one more."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["gateway", "gateway.*"]), "gateway.migrations"])
