"""One run, from its configuration to its record: of selection, of condensation, of continual learning.

Each kind of run is a module here that fulfils `Kind`; what runs share (networks, signals, checkpoints, the trainings at
the end, the queue) stands beside them. Nothing here sees a command line.
"""
