"""Python imports this by itself when the folder is on PYTHONPATH: so every kernel is guarded."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import guard

guard.block()
