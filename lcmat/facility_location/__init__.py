"""Greedy facility location over any distance: exact (incremental or lazy) and approximate, with costs and bounds.

It knows distances alone; which vectors they are between is the method's choice.
"""

from lcmat.facility_location.approximate import cover, greedy_options, resolve_greedy
from lcmat.facility_location.cover import Cover, covered
from lcmat.facility_location.exact import facility_location

__all__ = ["Cover", "cover", "covered", "facility_location", "greedy_options", "resolve_greedy"]
