"""What a certificate claims, in words."""

from __future__ import annotations

from converter.certificate.verdict import Certified


def claim(found: Certified, batchnorms: int | None = None, kept: int = 0) -> str:
    """A certificate as a clause, without the time that it took and without a full stop.

    Args:
        batchnorms: how many there are; by default the nodes of that op. A plan also counts those
            that several nodes compute.
        kept: how many of them were not folded. The certificate is for the whole graph, and so for
            these as well.
    """
    count = found.batchnorms if batchnorms is None else batchnorms
    norms = f"{count} of {count} batch-norms{f' ({kept} kept)' if kept else ''}; " if count else ""
    return (
        f"Certified for every input: {norms}{found.weights:,} weights, none moved by more than "
        f"{found.largest_move:.2f} roundings"
    )
