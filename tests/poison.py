"""Inputs on which a process dies, for tests of batches: a start-up file that a worker's Python reads, and the inputs."""

import os
from pathlib import Path

from tests.tiny import picture_bytes

POISON = 666  # the shade of a picture that ends whoever looks at it
SITE = '''
"""Kill this process when the model is asked about one picture, as a fault in native code would."""
import importlib.abc, importlib.util, os, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "workers.predict":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            predict = module.Predictor.predict
            def deadly(self, inputs, parameters):
                if any(value in {poison!r} for value in inputs):
                    os.kill(os.getpid(), signal.{signal})
                return predict(self, inputs, parameters)
            module.Predictor.predict = deadly
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
'''


def poisoned(folder: Path, shades: tuple[int, ...] = (POISON,), signal: str = "SIGKILL") -> dict[str, str]:
    """The environment of processes that die of pictures of these shades; `folder` is where the start-up file goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE.format(poison=[picture_bytes(shade) for shade in shades], signal=signal))
    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(root)]), "PYTHONUNBUFFERED": "1"}
