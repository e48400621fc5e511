"""The fusions by name: one file and one line here adds another (`fusion.py` has the contract)."""

from collections.abc import Callable

from components.models.fusions.amr import amr
from components.models.fusions.concat import concat
from components.models.fusions.exfmem import exfmem, minsim_exfmem
from components.models.fusions.fim import fim
from components.models.fusions.fusion import Fusion, Streams
from components.models.fusions.late import late
from components.models.fusions.minsim import minsim
from components.models.fusions.mmtm import mmtm
from components.models.fusions.single import rgb_alone, skeleton_alone

FUSIONS: dict[str, Callable[..., Fusion]] = {
    "late": late,
    "concat": concat,
    "mmtm": mmtm,
    "minsim": minsim,
    "exfmem": exfmem,
    "minsim_exfmem": minsim_exfmem,
    "fim": fim,
    "amr": amr,
    "rgb_alone": rgb_alone,
    "skeleton_alone": skeleton_alone,
}

__all__ = ["FUSIONS", "Fusion", "Streams"]
