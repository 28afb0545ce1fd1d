"""What all selection methods share: what a method and its picks are, budgets, the class-balanced wrapper, the subset.

Scores are ranked and gradients pursued here; distances, and the greedies over them, have wings of their own. Which
network a run's signals come from is the business of `runs`.
"""

from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.selection.method import Method, Picks
from lcmat.selection.select import select_with
from lcmat.selection.subset import Subset

__all__ = ["Context", "Method", "Picks", "Subset", "class_budgets", "select_with"]
