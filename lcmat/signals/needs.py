"""What a method may need of signals, each name saying what holds it: a field of Signals, or an entry of such a field.

"dynamics.margin" is the entry `margin` of the mapping `Signals.dynamics`; "validation.logits" the field `logits` of
the signals in `Signals.validation`, "initialisations.logits" that of each of the signals in `Signals.initialisations`.
"""

from __future__ import annotations

FEATURES, LOGITS = "features", "logits"
DYNAMICS_CORRECTNESS = "dynamics.correctness"
DYNAMICS_MARGIN = "dynamics.margin"
DYNAMICS_ERROR_NORM = "dynamics.error_norm"
DYNAMICS_PROBABILITY_MARGIN = "dynamics.probability_margin"
DYNAMICS_LOSS = "dynamics.loss"
DYNAMICS_CHANGE = "dynamics.change"
VALIDATION_FEATURES, VALIDATION_LOGITS = "validation.features", "validation.logits"
INITIALISATIONS_FEATURES, INITIALISATIONS_LOGITS = "initialisations.features", "initialisations.logits"

GRADIENTS = (FEATURES, LOGITS)  # what per-sample gradients and Hessians of the last layer are formed from
WITH_VALIDATION = (*GRADIENTS, VALIDATION_FEATURES, VALIDATION_LOGITS)
WITH_INITIALISATIONS = (INITIALISATIONS_FEATURES, INITIALISATIONS_LOGITS)
OF_DYNAMICS = (
    DYNAMICS_CORRECTNESS,
    DYNAMICS_MARGIN,
    DYNAMICS_ERROR_NORM,
    DYNAMICS_PROBABILITY_MARGIN,
    DYNAMICS_LOSS,
    DYNAMICS_CHANGE,
)
OF_SIGNALS = frozenset({*WITH_VALIDATION, *WITH_INITIALISATIONS, *OF_DYNAMICS})
