"""One hash of the code that decides results: for resuming, for searches, for evaluation keys.

DVC watches the same files as dependencies of its stages (`tests/architecture/test_dvc.py` holds
`dvc.yaml` to this list).
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import components

# Everything under components/ except what only reads results, writes the sample, or starts a run.
UNDECIDING = ("config", "reporting", "sample", "sources", "ntu")


def deciding_files() -> list[Path]:
    """The source files, sorted, whose change may change a trained model or a verdict on it."""
    root = Path(components.__file__).parent
    files = sorted(root.rglob("*.py"))
    return [f for f in files if f.relative_to(root).parts[0] not in UNDECIDING]


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Sixteen hex digits over those files' names and contents."""
    root = Path(components.__file__).parent
    digest = hashlib.sha256()
    for file in deciding_files():
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]
