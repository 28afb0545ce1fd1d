"""Subsets in the light of LCMat's theory: bound, sharpness, landscape, variance, overlap, diagonal; contact sheets.

Each analysis goes from groups of cases to rows of numbers; the command `analysis` writes and draws them.
"""

from lcmat.analysis.analyses import ANALYSES, How
from lcmat.analysis.contact_sheet import images
from lcmat.analysis.groups import groups_of

__all__ = ["ANALYSES", "How", "groups_of", "images"]
