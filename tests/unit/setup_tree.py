# SPDX-License-Identifier: Apache-2.0
"""A copy of the set-up's files in a tree of its own, for tests of the set-up."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[2]


def make_tree(root: Path) -> Path:
    """A tree with the set-up's own files and as much else as it looks at."""
    (root / "scripts").mkdir(parents=True)
    for name in ("bootstrap.py", "workspace.py"):
        shutil.copy(SOURCE / "scripts" / name, root / "scripts")
    shutil.copy(SOURCE / "Makefile", root)
    (root / "requirements.lock").write_text("numpy==2.4.6\n")
    for package in ("src/twinloop", "src/twinloop_bringup", "src/twinloop_interfaces"):
        (root / package).mkdir(parents=True)
        (root / package / "package.xml").write_text(f"<package>{package}</package>")
    return root


def load(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", root / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
