"""Fixtures of molecule/shared/cluster_fixtures.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))
pytest_plugins = ["cluster_fixtures"]
