"""The answers of a study: shares with intervals, strengths of methods, agreement of raters."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from .._files import read_regular
from .._json import parse_json
from ..errors import InputError, shown
from ._make import SIDES

_ROUNDS = 10_000
_TOLERANCE = 1e-10


def analyse_study(
    key: str | Path, answers: Iterable[str | Path], *, failed_checks: int = 0
) -> dict[str, Any]:
    """Read the answers of all raters and say which methods they prefer.

    Intervals are Wilson's at 95 %, of independent answers: with few raters who differ, trust the
    shares per rater instead.

    Args:
        key: `key.json` of the study.
        answers: the files that raters saved.
        failed_checks: raters who failed more attention checks are left out.

    Returns:
        `raters` (counted, and `excluded` with the checks that each failed), `left` (share of
        answers on the left: far from one half means that sides decided), and per question
        `pairs` ("A vs B": how often A was chosen, over all raters and per rater, and how often two
        raters agree), and for more than two methods `strengths` (Bradley-Terry, summing to 1).
        A share has `mean`, `low`, `high` and `answers`.

    Raises:
        InputError: a file that is damaged, of another study, or given twice; no answers.
    """
    study, trials = _read_key(Path(key))
    raters = [_read_answers(Path(path), study, len(trials)) for path in answers]
    repeated = [rater for rater, count in Counter(name for name, _ in raters).items() if count > 1]
    if repeated:
        raise InputError(f"rater {shown(repeated[0])} is given twice; expected each file once")
    failed = {name: _failures(trials, given) for name, given in raters}
    kept = {name: given for name, given in raters if failed[name] <= failed_checks}
    if not any(kept.values()):
        raise InputError(
            f"none of {len(raters)} raters passed the checks; collect more or allow failures"
        )
    questions = dict.fromkeys(trial["question"] for trial in trials if "question" in trial)
    sides = [answer["side"] == "left" for given in kept.values() for answer in given]
    excluded = {name: count for name, count in failed.items() if name not in kept}
    return {
        "study": study,
        "raters": {"kept": len(kept), "excluded": excluded},
        "left": _share(sides),
        "questions": {question: _of_question(question, trials, kept) for question in questions},
    }


def _of_question(
    question: str, trials: list[dict[str, str]], kept: dict[str, list[dict]]
) -> dict[str, Any]:
    chosen: dict[tuple[str, str], list[tuple[str, int, bool]]] = defaultdict(list)
    for rater, given in kept.items():
        for answer in given:
            trial = trials[answer["trial"]]
            if trial.get("question") == question:
                methods = tuple(sorted([trial["first"], trial["second"]]))
                won = trial[answer["choice"]] == methods[0]
                chosen[methods].append((rater, answer["trial"], won))  # pyright: ignore[reportArgumentType]
    pairs = {
        f"{a} vs {b}": {
            **_share([won for _, _, won in votes]),
            "agreement": _agreement(votes),
            "raters": {
                rater: _share([won for name, _, won in votes if name == rater])
                for rater in dict.fromkeys(name for name, _, _ in votes)
            },
        }
        for (a, b), votes in sorted(chosen.items())
    }
    if len(chosen) < 2:
        return {"pairs": pairs}
    return {"pairs": pairs, "strengths": _bradley_terry(chosen)}


def _share(choices: list[bool]) -> dict[str, Any]:
    """Return the share of True with its Wilson interval."""
    from scipy.stats import binomtest

    if not choices:
        return {"mean": None, "low": None, "high": None, "answers": 0}
    interval = binomtest(sum(choices), len(choices)).proportion_ci(method="wilson")
    return {
        "mean": sum(choices) / len(choices),
        "low": float(interval.low),
        "high": float(interval.high),
        "answers": len(choices),
    }


def _agreement(votes: list[tuple[str, int, bool]]) -> dict[str, float | None]:
    """Return how often two raters agree on a pair, and kappa, which is 0 for agreement by chance.

    Fleiss' kappa, for any number of raters per pair (Fleiss, 1971).
    """
    by_trial: dict[int, list[bool]] = defaultdict(list)
    for _, trial, won in votes:
        by_trial[trial].append(won)
    shared = [np.array(each) for each in by_trial.values() if len(each) > 1]
    if not shared:
        return {"observed": None, "kappa": None}
    observed = float(np.mean([_pairs_alike(each) for each in shared]))
    first = float(np.concatenate(shared).mean())
    by_chance = first**2 + (1 - first) ** 2
    kappa = (observed - by_chance) / (1 - by_chance) if by_chance < 1 else None
    return {"observed": observed, "kappa": kappa}


def _pairs_alike(choices: np.ndarray) -> float:
    """Return the share of all pairs of raters who chose alike."""
    total, first = len(choices), int(choices.sum())
    return (comb(first, 2) + comb(total - first, 2)) / comb(total, 2)


def _bradley_terry(chosen: dict[tuple[str, str], list[tuple[str, int, bool]]]) -> dict[str, float]:
    """Return the strength of each method: A beats B with probability s_A / (s_A + s_B).

    By the minorise-maximise iteration of Hunter (2004). Half a win each way is added to every pair
    compared, since a method that never loses would have an infinite strength.
    """
    names = sorted({name for pair in chosen for name in pair})
    index = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for (a, b), votes in chosen.items():
        won = sum(vote[2] for vote in votes)
        wins[index[a], index[b]] = won + 0.5
        wins[index[b], index[a]] = len(votes) - won + 0.5
    compared = wins + wins.T
    strengths = np.full(len(names), 1 / len(names))
    for _ in range(_ROUNDS):
        before = strengths
        strengths = wins.sum(1) / (compared / (strengths[:, None] + strengths)).sum(1)
        strengths /= strengths.sum()
        if np.abs(strengths - before).max() < _TOLERANCE:
            break
    return {name: float(strengths[i]) for name, i in index.items()}


def _failures(trials: list[dict[str, str]], given: list[dict]) -> int:
    """Return how many attention checks a rater failed."""
    checks = [(trials[answer["trial"]].get("check"), answer["side"]) for answer in given]
    return sum(expected is not None and expected != side for expected, side in checks)


def _read_key(path: Path) -> tuple[str, list[dict[str, str]]]:
    match parse_json(_read(path), str(path)):
        case {"study": str(study), "trials": list(trials)}:
            return study, trials
    raise InputError(f"{path} is not the key of a study; expected key.json of `w2w study make`")


def _read_answers(path: Path, study: str, trials: int) -> tuple[str, list[dict]]:
    match parse_json(_read(path), str(path)):
        case {"study": str(other), "rater": str(rater), "answers": list(answers)}:
            pass
        case _:
            raise InputError(f"{path} does not hold answers; expected a file saved by the page")
    if other != study:
        raise InputError(f"{path} answers study {shown(other)}; expected answers of {study}")
    seen = set()
    for answer in answers:
        match answer:
            case {"trial": int(trial), "choice": "first" | "second", "side": side} if (
                0 <= trial < trials and side in SIDES and trial not in seen
            ):
                seen.add(trial)
            case _:
                raise InputError(f"{path} has an unusable answer: {shown(answer)}")
    return rater, answers


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a file of a study") from None
