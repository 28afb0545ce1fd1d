"""What the command lines pass to the library."""

import methods
import nets
from lcmat.command_line import Registry

REGISTRY = Registry(
    method=lambda name: methods.find(name),
    methods=tuple(methods.names()),
    samplers=tuple(methods.samplers()),
    build=lambda *words: nets.build(*words),
    networks=tuple(nets.names()),
    revision=lambda *words: nets.revision(*words),
)
