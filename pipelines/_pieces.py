"""Pieces of an evaluation on nodes that need to share no folder with the driver.

The checkpoint travels to them, and what they find comes back as bytes; only the shards are read
where they lie. The driver writes each piece down when it arrives, so a killed evaluation goes on.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from components.checkpoint import checkpoint_files, write_folder
from components.evaluation.piece import Piece, export_path, run_piece
from components.files import write_bytes
from pipelines._tasks import Cluster, parallel, to_nodes

Files = dict[str, bytes]


def run_pieces(
    c: Cluster, pieces: Sequence[Piece], *, workers: int, describe: str, gpus: float
) -> list[Path]:
    """Do the pieces of one model that are not done yet; the files of all, in order of pieces."""
    checkpoint = to_nodes(checkpoint_files(pieces[0].checkpoint))
    twin = to_nodes(checkpoint_files(pieces[0].twin) if pieces[0].twin else {})
    missing = [piece for piece in pieces if not piece.path.exists()]

    def work(piece: Piece) -> tuple[Piece, Files]:
        with tempfile.TemporaryDirectory(prefix="piece-") as folder:
            home = Path(folder)
            write_folder(home / "best", checkpoint())
            if piece.twin:
                write_folder(home / "twin", twin())
            here = replace(
                piece,
                checkpoint=str(home / "best"),
                twin=str(home / "twin") if piece.twin else "",
                folder=str(home / "out"),
            )
            run_piece(here)
            return piece, {path.name: path.read_bytes() for path in (home / "out").iterdir()}

    def write_down(found: tuple[Piece, Files]) -> None:
        piece, files = found
        # The export first: once the records are there, the piece counts as done.
        for path in (export_path(piece.path), piece.path):
            if path.name in files:
                write_bytes(path, files[path.name])

    for _ in parallel(
        c, work, missing, workers=workers, describe=describe, gpus=gpus, arrived=write_down
    ):
        pass
    return [piece.path for piece in pieces]
