import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))  # a scripted authority, and requests as raw bytes
