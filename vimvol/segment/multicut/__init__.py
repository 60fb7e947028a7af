"""Partition of a graph by multicut: solvers by name, and the division of a graph that is too large for one.

A multicut joins nodes such that the summed costs of the edges between different groups are lowest. The
problem is NP-hard; all solvers here are heuristics, and all are deterministic.
"""

from __future__ import annotations

from vimvol.segment.multicut.solvers import SOLVERS, check_solver, energy, is_divisible, solve

__all__ = ["SOLVERS", "check_solver", "energy", "is_divisible", "solve"]
