"""The parts of the node that need no ComfyUI, under the name `node`."""

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
NODE = ROOT / "ComfyUI-tensorpress"
sys.path.insert(0, str(ROOT.parent / "python" / "src"))

package = ModuleType("node")
package.__path__ = [str(NODE)]
sys.modules["node"] = package
