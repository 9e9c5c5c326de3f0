# SPDX-License-Identifier: Apache-2.0
"""Runs at every start of the environment's Python and makes the built workspace known to it.

Does what `source install/setup.bash` does on a ROS 2 installation: ament index, shared libraries,
Python packages. Copied into site-packages by bootstrap.py.
"""

import os
import site
import sys
from pathlib import Path

_venv = Path(sys.prefix)
_install = _venv.parent / "install"


def _prepend(variable, *paths):
    present = [p for p in os.environ.get(variable, "").split(os.pathsep) if p]
    wanted = [str(path) for path in paths]
    os.environ[variable] = os.pathsep.join([*wanted, *(p for p in present if p not in wanted)])


_prepend("AMENT_PREFIX_PATH", _install, _venv)
_prepend("LD_LIBRARY_PATH", _install / "lib")
_packages = (
    _install / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
)
site.addsitedir(str(_packages))
for _link in sorted(_packages.glob("*.egg-link")):
    # Packages built with --symlink-install: the link names the folder that Python is to look in.
    site.addsitedir(_link.read_text().splitlines()[0])
