"""What the command lines pass to the library."""

import methods
import nets
from lcmat.planning import Rooms

ROOMS = Rooms(methods.get, tuple(methods.names()), nets.build, tuple(nets.names()))
