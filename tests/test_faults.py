"""A small cut of the fault suite (tools/faults.py); `make faults` runs all of it."""

import os
import subprocess
import sys

KINDS = ["kills", "writers", "flipped", "malformed"] + ["disks"] * (os.geteuid() == 0)  # small disks need root


def test_a_cut_of_the_faults_goes_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.faults", "--share", "0.02", "--only", *KINDS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("every trial went right\n"), done.stdout + done.stderr[-2000:]
