"""The engine for one model, when it is loaded.

    the default is checked -> what is remembered, or measured of each -> choice -> it is loaded
        -> its self-test, again -> it serves

Without a self-test nothing is known of errors, and without an input nothing of times: then the
default serves. So it does where a run is shorter than the way to a thread and back, which only
onnxruntime's own runs are spared.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from service.batching.batch import Run, attempt
from service.batching.choose import RunSettings
from service.device import DeviceUnavailable
from service.engines import budget, memory
from service.engines.budget import Budget
from service.engines.choice import Row, Trial, choose
from service.engines.table import DEFAULT, ENGINES, Engine, tried
from service.engines.trial import Accuracy, Subject, accuracy, timed
from service.models.bundle import Rejected
from service.models.check import Checked
from service.models.held import Held
from service.models.runtime import CannotLoad, Runtime

logger = logging.getLogger("foldserve.engines")

_SHORT_MS = 0.25
# A lone request is given all threads where it takes at most so much of the time then (choose.py).
_ALONE_GAIN = 0.85


@dataclass(frozen=True, slots=True)
class Wish:
    """`provider`: auto, or a family of the table. `allowed`: --max-error. `folder`: of choices."""

    provider: str
    allowed: Budget | None = None
    folder: Path = memory.FOLDER


@dataclass(frozen=True, slots=True)
class Picked:
    """What serves. `settings`: with the threads that it takes. `rows`: the table to show."""

    runtime: Runtime
    settings: RunSettings
    warm_up_ms: float | None
    self_test_errors: dict[str, float] | None
    rows: Sequence[Row] = ()


def unasked(checked: Checked, settings: RunSettings) -> Picked:
    """The session that was checked, where nobody asked for a choice."""
    return Picked(checked.runtime, settings, checked.warm_up_ms, checked.self_test_errors)


def pick(
    wish: Wish,
    checked: Checked,
    model: Path | Held,
    cpus: int,
    settings: RunSettings,
    *,
    twice: bool,
) -> Picked:
    """The engine that serves a version, and what was measured.

    Args:
        wish: of the operator.
        checked: the version, on the default engine.
        model: what a session is made of.
        cpus: that its runs may keep busy.
        settings: of the operator and the manifest.
        twice: whether lone requests may have a session of their own.

    Raises:
        Rejected: another engine than the default was insisted on, and none can serve.
    """
    insist = wish.provider != "auto"
    why = _why_not(checked, settings, insist=insist)
    if why:
        if insist:
            raise Rejected(f"--provider {wish.provider}: {why}")
        return _default(checked, settings, why)
    what = _Measuring(wish.provider, checked, model, cpus, settings, twice)
    said = checked.declared.self_test if checked.declared else None
    allowed = budget.of(
        wish.allowed,
        said.max_error if said else None,
        classifies=checked.manifest.classification is not None,
    )
    folder = wish.folder.expanduser()
    files = checked.declared.files if checked.declared else {}
    name = memory.key({n: entry.sha256 for n, entry in files.items()}, what.depends_on())
    with memory.alone(folder):
        trials = memory.recall(folder, name)
        if trials is None or [t.engine for t in trials] != [e.name for e in tried(wish.provider)]:
            try:
                trials = what.trials()
            except _Fails as error:
                return _default(checked, settings, f"it cannot be measured: {error}")
            memory.keep(folder, name, trials)
    rows = choose(trials, allowed, insist=insist)
    return what.loaded(rows, allowed, insist=insist)


def _default(checked: Checked, settings: RunSettings, why: str) -> Picked:
    row = Row(Trial(DEFAULT.name, DEFAULT.precision), True, why)
    return replace(unasked(checked, settings), rows=[row])


def _why_not(checked: Checked, settings: RunSettings, *, insist: bool) -> str:
    """Why there is nothing to choose from."""
    if checked.test is None:
        return "no self-test tells how far off another engine is"
    if checked.example is None:
        return "no input is known to measure with"
    short = checked.warm_up_ms is not None and checked.warm_up_ms <= _SHORT_MS
    if short and not insist and not settings.runners and not settings.max_wait_s:
        return "a run is shorter than the way to a thread and back"
    return ""


@dataclass(frozen=True, slots=True)
class _Measuring:
    provider: str
    checked: Checked
    model: Path | Held
    cpus: int
    settings: RunSettings
    twice: bool

    def depends_on(self) -> dict[str, object]:
        settings = self.settings
        return {
            "provider": self.provider, "cpus": self.cpus, "runners": settings.runners,
            "threads": settings.threads, "max_batch_rows": settings.max_batch_rows,
            "twice": self.twice,
        }  # fmt: skip

    def trials(self) -> list[Trial]:
        """One for each engine, the default first. Each is let go before the next is loaded."""
        run = self.checked.runtime.run
        default = self._subject(DEFAULT, run, run)
        own = self._accuracy(run)
        found: list[Trial] = []
        for engine in tried(self.provider)[1:]:
            trial, subject = self._trial(engine, default)
            own_family = engine.family == DEFAULT.family
            if subject and own_family and self.twice and trial.lone <= _ALONE_GAIN:
                # The default, too, answers a lone request on all threads.
                default = self._subject(DEFAULT, run, subject.run)
                trial = replace(trial, lone=1.0)
            found.append(trial)
        itself = self._timed(DEFAULT, own, default, default)
        return [replace(itself, lone=1.0, row=1.0), *found]

    def loaded(self, rows: Sequence[Row], allowed: Budget, *, insist: bool) -> Picked:
        """What the table has chosen, once it has passed the self-test by itself.

        Raises:
            Rejected: nothing is chosen, or it fails now and the default is not wanted.
        """
        chosen = next((row for row in rows if row.chosen), None)
        if chosen is None:
            reasons = "; ".join(f"{row.trial.engine}: {row.why}" for row in rows[1:])
            raise Rejected(f"--provider {self.provider}: no engine can serve it ({reasons})")
        trial = chosen.trial
        engine = next(each for each in ENGINES if each.name == trial.engine)
        if engine is DEFAULT:
            return replace(unasked(self.checked, self.settings), rows=rows)
        why = ""
        try:
            runtime = self._runtime(engine)
            now = self._accuracy(runtime.run)
            own = rows[0].trial.error
            why = allowed.objection(now.error, own, now.within_atol, now.changed)
        except (CannotLoad, DeviceUnavailable, _Fails) as error:
            why = str(error)
        if not why:
            settings = replace(self.settings, threads=self._threads(engine))
            return Picked(runtime, settings, trial.lone_ms, now.each, rows)
        if insist:
            raise Rejected(f"--provider {self.provider}: {trial.engine}: {why}")
        logger.warning("%s is not used for %s: %s", engine.name, self.checked.manifest.name, why)
        again = [
            replace(r, chosen=r is rows[0], why=f"not now: {why}" if r is chosen else r.why)
            for r in rows
        ]
        return replace(unasked(self.checked, self.settings), rows=again)

    def _trial(self, engine: Engine, default: Subject) -> tuple[Trial, Subject | None]:
        said = engine.obstacle() or self._same(engine)
        try:
            if said:
                raise CannotLoad(said)
            runtime = self._runtime(engine)
            how = self._accuracy(runtime.run)
            subject = self._subject(engine, runtime.run, runtime.run)
            trial = self._timed(engine, how, subject, default, _note(engine, runtime))
        except (CannotLoad, DeviceUnavailable, _Fails) as error:
            return Trial(engine.name, engine.precision, str(error)), None
        return trial, subject

    def _timed(
        self, engine: Engine, how: Accuracy, subject: Subject, default: Subject, note: str = ""
    ) -> Trial:
        assert self.checked.example is not None
        try:
            return timed(
                engine.name, engine.precision, how, subject, default, self.checked.example,
                batched=self._batched, note=note,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  whatever it is, it cannot run this model
            raise _Fails(f"it fails on a batch ({type(error).__name__})") from None

    def _same(self, engine: Engine) -> str:
        if engine.family == DEFAULT.family and self._threads(engine) == self._threads(DEFAULT):
            return "the same as the default here"
        return ""

    def _threads(self, engine: Engine) -> int:
        return self.settings.threads or (self.cpus if engine.whole else 1)

    def _subject(self, engine: Engine, run: Run, alone: Run) -> Subject:
        whole = engine.whole
        runners = 1 if whole else max(1, self.cpus // self._threads(engine))
        return Subject(run, self.settings.runners or runners, alone)

    def _runtime(self, engine: Engine) -> Runtime:
        threads = self._threads(engine)
        runtime = Runtime(
            self.model, engine.choice(threads), threads, self.checked.runtime.left_out
        )
        if engine.family != DEFAULT.family:
            left, count, _ = runtime.left_to_the_cpu()
            if left == count:
                raise CannotLoad("it takes no node of this graph")
        return runtime

    def _accuracy(self, run: Run) -> Accuracy:
        checked = self.checked
        assert checked.test is not None
        how = checked.manifest.classification
        try:
            return accuracy(
                partial(attempt, run), checked.test, how.output if how else None,
                by_rows=checked.signature.batched,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  whatever it is, it cannot run this model
            raise _Fails(f"it fails on the self-test ({type(error).__name__})") from None

    @property
    def _batched(self) -> bool:
        declared = self.checked.declared
        invariant = declared is not None and declared.batch_invariant
        return self.checked.signature.batched and invariant and self.settings.max_batch_rows != 1


class _Fails(Exception):
    """The text says what an engine could not do."""


def _note(engine: Engine, runtime: Runtime) -> str:
    """What of the graph a plug-in leaves to onnxruntime."""
    if engine.family == DEFAULT.family:
        return ""
    left, count, ops = runtime.left_to_the_cpu()
    return f"{left} of {count} nodes stay with onnxruntime: {', '.join(ops)}" if left else ""
