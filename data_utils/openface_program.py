"""Stage `action_units` with OpenFace's own program, where `FeatureExtraction` is on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from data_utils.action_units import check_action_units
from data_utils.published import OPENFACE
from data_utils.stage import Progress, count_frames, no_progress
from gaussian_head.data.layout import SubjectLayout
from gaussian_head.errors import UserError
from gaussian_head.media.files import replacing

REMEDY = "run it by hand, or give --action-units builtin."


def run_openface(layout: SubjectLayout, progress: Progress = no_progress) -> dict[str, Any]:
    """Write `au.csv` by OpenFace's program, shown the frames of the folder.

    Args:
        layout: The folder, with `ori_imgs/` and landmarks.
        progress: Wraps the one step.

    Returns:
        Facts: the source, faces seen, frames failed, and each unit's correlation with the built-in measure.

    Raises:
        UserError: The program failed, wrote no CSV, or one that does not fit the frames.
    """
    count = count_frames(layout)
    with tempfile.TemporaryDirectory() as folder:
        pictures, out = Path(folder) / "frames", Path(folder) / "out"
        pictures.mkdir()
        for k in range(count):  # the program sorts by name: 10 would come before 2
            (pictures / f"{k:08d}.jpg").symlink_to(layout.frame(k).resolve())
        for _ in progress(range(1), 1, "action_units"):
            command = [shutil.which(OPENFACE) or OPENFACE, "-fdir", pictures, "-aus", "-out_dir", out, "-of", "au"]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 -- the user's program
            except (OSError, subprocess.CalledProcessError) as error:
                said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
                raise UserError(f"{OPENFACE} failed ({''.join(said)}); {REMEDY}") from error
        written = sorted(out.glob("*.csv"))
        if not written:
            raise UserError(f"{OPENFACE} wrote no CSV; {REMEDY}")
        told = check_action_units(layout, written[0])
        with replacing(layout.action_units) as temporary:
            shutil.copyfile(written[0], temporary)
    return {"source": OPENFACE, "frames": count, **told}
