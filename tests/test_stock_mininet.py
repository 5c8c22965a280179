"""Stock Mininet builds our topology from its file alone, with the system's Python: `mn --custom`."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PYTHON = Path("/usr/bin/python3")

# What `mn --custom FILE --topo e3,NAME` does with the file, up to the point where it would need root.
AS_MN_DOES = """
import sys
customs = {}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), customs, customs)
topo = customs["topos"]["e3"](*sys.argv[2:])
print(len(topo.hosts()), len(topo.switches()), len(topo.links()))
"""


@pytest.mark.parametrize(("arguments", "counts"), [([], "8 1 8"), (["type2x2"], "12 1 18"), (["type1x1/2"], "8 4 12")])
def test_mn_custom_builds_the_topology(tmp_path: Path, arguments: list[str], counts: str) -> None:
    done = subprocess.run([SYSTEM_PYTHON, "-I", "-c", AS_MN_DOES, str(ROOT / "topologies" / "mininet_topo.py"),
                           *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    if "No module named 'mininet'" in done.stderr:
        pytest.skip("the system's Python has no Mininet")
    assert done.stdout.strip() == counts, done.stderr
