"""Report: what `edgekit check` found, for people and as JSON."""

from typing import Any, NamedTuple

import numpy as np

from edgekit.codecs.base import Arrays
from edgekit.errors import BackendError
from edgekit.export.parity.half_scores import HalfScores
from edgekit.runtime.golden import agreeing

#: Largest relative error of a weight's gradient.
GRADIENT = 0.05
#: A gradient whose norm is below this share of the largest has vanished, as that of a bias before batch norm: what is
#: left of it is rounding, and its error is taken relative to this share.
VANISHED = 1e-4


class Check(NamedTuple):
    """One comparison; `value` and `limit` are its numbers, where it has some."""

    name: str
    passed: bool
    got: str
    expected: str
    #: What to do when it failed.
    remedy: str
    value: float | None = None
    limit: float | None = None


class Report(NamedTuple):
    """All comparisons of one bundle on one backend."""

    bundle: str
    digest: str
    model: str
    cut: str
    device: str
    backend: str
    #: Arithmetic that the tolerances are for, "float32" or "float16".
    precision: str
    checks: list[Check]
    notes: list[str]
    #: None when the codec compares no scores.
    half_scores: HalfScores | None

    @property
    def failed(self) -> list[Check]:
        return [each for each in self.checks if not each.passed]

    def to_json(self) -> dict[str, Any]:
        half = self.half_scores._asdict() if self.half_scores else None
        nested = {"checks": [each._asdict() for each in self.checks], "half_scores": half}
        return {**self._asdict(), **nested, "passed": not self.failed}

    def require(self) -> None:
        """BackendError that names the first failed check, if there is one."""
        if self.failed:
            first, *others = self.failed
            also = f"; failed as well: {', '.join(each.name for each in others)}" if others else ""
            raise BackendError(
                f"{self.bundle} on {self.backend}: {first.name}: got {first.got}, expected {first.expected}: "
                f"{first.remedy}{also}"
            )


def equal_codes(name: str, got: np.ndarray, expected: np.ndarray, share: float, remedy: str) -> Check:
    """Passes when at least `share` of the codes are equal; of integer ones one may always differ."""
    equal = agreeing(got, expected)
    wrong, value = int(equal.size - equal.sum()), float(equal.mean())
    allowed = max(int((1 - share) * equal.size), 1 if got.dtype.kind == "i" else 0)
    told = f"{value:.2%} equal, {wrong} of {equal.size} differ"
    return Check(name, wrong <= allowed, told, f"at least {share:.1%}", remedy, value, share)


def small_error(name: str, error: float, limit: float, remedy: str, where: str = "") -> Check:
    """Passes when the relative `error` is a number up to `limit`."""
    return Check(name, error <= limit, f"{error:.1e}{where}", f"at most {limit:.1e}", remedy, error, limit)


def worst_gradient(name: str, got: Arrays, expected: Arrays, remedy: str) -> Check:
    """Passes when no gradient's relative error is above `GRADIENT`; names the worst."""
    norms = {key: float(np.linalg.norm(array)) for key, array in expected.items()}
    floor = VANISHED * max(norms.values())
    errors = {
        key: float(np.linalg.norm(got[key] - array)) / (max(norms[key], floor) or 1.0)
        for key, array in expected.items()
    }
    worst = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
    return small_error(name, errors[worst], GRADIENT, remedy, f" for {worst.removeprefix('gradient.')}")
