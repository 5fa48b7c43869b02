"""What stands on axes, read from their artists."""

from __future__ import annotations

import numpy as np


def bars(ax):
    """(place, low, high) of every interval drawn along x."""
    found = []
    for line in ax.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if len(x) == 2 and y[0] == y[1] and line.get_linestyle() == "-" and line.get_linewidth() == 1.3:
            found.append((float(y[0]), float(x[0]), float(x[1])))
    return found


def marks(ax, label):
    """(x, y) of the points that the key calls by this name."""
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return list(zip(np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist()))


def hairs(collection):
    """((x, y), (x, y)) of every line in a collection of lines."""
    return [tuple(map(tuple, segment.round(9).tolist())) for segment in collection.get_segments()]


def corners(band):
    """(x, y) of the corners of a band."""
    return {tuple(row) for row in band.get_paths()[0].vertices.round(6).tolist()}
