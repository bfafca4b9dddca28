"""The packages of the wheel; pyproject.toml has everything else.

`cogs/` stands at the top of the repository. At the top of site-packages that name is also other bots', so a wheel has
it inside `bot`, and `bot/__init__.py` puts its folder on the path.
"""

from __future__ import annotations

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["bot", "bot.*"]), "bot._installed.cogs"],
    package_dir={"bot._installed.cogs": "cogs"},
)
