"""When fits are due, which snapshots wait for them, and from which snapshot each holds (DESIGN.md rule 7).

A due time D is a multiple of ``every_us``, which is a multiple of the bar's size. It is known that all snapshots that
end at or before D are closed once one closes that ends at D, or that starts at or after it: then the models are
fitted to those. No fit is due where no snapshot has closed since the last one, so none before the first. Dues are thus
a function of the snapshots alone: the fitter, which fits at them, and `universes`, which expects the fits, come to the
same ones, each behind a barrier of its own.

A fit that is due at D holds for snapshots that start at or after D + ``lag_us``. Where the settings say that snapshots
wait, one is not closed while a fit that should hold for it is missing; otherwise a fit that comes late holds from the
snapshot after it. The fitter writes the fits of one due one after another, that of `LAST` behind the others.
"""

from __future__ import annotations

from schemas.records import NEVER, Fit, FitSpec
from schemas.states import UniverseState

HMM, LAST = "hmm", "correlations"
"""Names of the models in the fits."""


def due_before(state: UniverseState, spec: FitSpec, start: int) -> int | None:
    """The due that the closing of a snapshot makes known at its start, if there is one. µs."""
    due = start // spec.every_us * spec.every_us
    return due if state.has_news and due > state.last_due else None


def closed(state: UniverseState, spec: FitSpec | None, start: int, end: int) -> tuple[int | None, int | None]:
    """A snapshot closes: the dues that come to be known, of the snapshots before it and of it too."""
    if spec is None:
        return None, None
    if state.last_due == NEVER:  # of what was due before the first snapshot there is nothing to fit to
        state.last_due = start // spec.every_us * spec.every_us
    before = due_before(state, spec, start)
    if before is not None:
        _expect(state, before)
    state.has_news = True
    if end % spec.every_us:
        return before, None
    _expect(state, end)
    return before, end


def _expect(state: UniverseState, due: int) -> None:
    state.last_due, state.has_news = due, False
    if due > state.fitted:
        state.dues.append(due)


def take(state: UniverseState, fit: Fit) -> None:
    """A fit has come; one that came before is a repeat."""
    if fit.version <= state.versions.get(fit.model, 0):
        return
    state.versions[fit.model] = fit.version
    state.fits.append(fit)
    if fit.model == LAST and fit.due > state.fitted:
        state.fitted = fit.due
        state.dues = [due for due in state.dues if due > fit.due]


def is_missing(state: UniverseState, spec: FitSpec | None, start: int) -> bool:
    """Whether a snapshot waits: a fit should hold for it, and has not come."""
    if spec is None or not spec.waits:
        return False
    known = due_before(state, spec, start)
    expected = state.dues if known is None or known <= state.fitted else [*state.dues, known]
    return any(due + spec.lag_us <= start for due in expected)


def begin(state: UniverseState, start: int) -> tuple[Fit, ...]:
    """The fits that hold from the snapshot of ``start`` on, in their order; they wait no longer."""
    if not state.fits:
        return ()
    begun = tuple(fit for fit in state.fits if fit.holds_from <= start)
    state.fits = [fit for fit in state.fits if fit.holds_from > start]
    return begun
