"""Makes workers that train nothing: for `scale.py --executor local` and `ray`.

Python runs this file at its start where this folder is in PYTHONPATH. A worker is what it always
is, with its pipe, its run's outbox and its uploader; only training and artifacts are left out.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path


class _Hook(MetaPathFinder):
    """Changes `mtl.tracking.run_recorder`, which every worker imports, once it is loaded."""

    def find_spec(self, name, path, target=None):
        if name != "mtl.tracking.run_recorder":
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module) -> None:
            load(module)
            _install(module)

        spec.loader.exec_module = exec_module
        return spec


def _install(recorder) -> None:
    import minbert

    sys.path.append(str(Path(__file__).parents[1]))
    from scale_noop import STEPS, estimates, evaluation, made_up

    def train(config, *, checkpoint_dir, **_):
        yield evaluation(made_up(int(checkpoint_dir.name), config.to_keys()))

    def finish(self, config, checkpoint_dir, *_):
        scores = made_up(int(checkpoint_dir.name), config.to_keys())
        points = {f"final/{name}": given.value for name, given in estimates(scores).items()}
        self._log(STEPS, points | {"parameters/trainable": 9e3, "parameters/total": 1e5})
        return recorder.Recorded(evaluation(scores), estimates(scores), 40_000, 9_000, [])

    minbert.train, minbert.total_steps = train, lambda *_: STEPS
    recorder.RunRecorder.finish = finish


sys.meta_path.insert(0, _Hook())
