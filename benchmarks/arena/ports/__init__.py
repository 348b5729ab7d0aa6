"""Other people's methods onto our base: each port says which mechanism it keeps and what differs.

A port learns from a few real defects and writes labelled pictures, all by the same function:

    make(shots, good, count, seed, out, **settings)

``OUT/TYPE/NAME.png`` with ``NAME_mask.png``, ``count`` of every type of the shots.
"""
