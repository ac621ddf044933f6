"""Run `python -m gaussian_head.train all` with a tiny preset, and die by SIGKILL where the last argument says.

python killed_run.py DATA OUT {never,landmarks:STEP,mouth:STEP,face:saving,fuse:cleaning,torso:STEP}
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from tiny_fit import TINY

from gaussian_head import checkpoints, train
from gaussian_head.training.landmarks import LandmarkStage
from gaussian_head.training.stage import Stage, View
from gaussian_head.training.stages import FaceStage, FuseStage, MouthStage
from gaussian_head.training.torso import TorsoStage


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str) -> None:
    """Set the trap."""
    if where == "never":
        return
    name, moment = where.split(":")
    kind = {kind.name: kind for kind in (LandmarkStage, MouthStage, FaceStage, FuseStage, TorsoStage)}[name]
    view, first = kind.view, []

    def watched(self: Stage, step: int) -> View:
        first.append(step)
        if moment.isdigit() and step == int(moment):
            die()
        if step > TINY.trainer.save_every + min(first):  # one checkpoint of this stage is there
            if moment == "saving":
                checkpoints._flush = die  # the next one is half written
            if moment == "cleaning":  # the next one is written, the old one not yet removed
                shutil.rmtree = lambda path, ignore_errors=False: None if ignore_errors else die()
        return view(self, step)

    kind.view = watched


if __name__ == "__main__":
    data, out, where = sys.argv[1:]
    train.PRESETS["quick"] = TINY
    arm(where)
    sys.argv = [str(Path(train.__file__)), "all", "--data", data, "--out", out]
    train.main()
