"""Simulated devices: what a phone's sessions look like, without a phone.

A session is a fresh process. Its level (the logarithm of how slow the device is then) differs from
session to session with standard deviation ``sd``; inside a session the iterations scatter around
it, each like the one before, with spikes. Eight kinds of device differ in how levels follow each
other in time. Nothing here knows of gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SESSIONS = 24
"""Twelve pairs: what the extended gate measures."""

ITERATIONS = 20
WITHIN_SD = 0.015
WITHIN_CORRELATION = 0.5
SPIKES = 0.02
SPIKE = 0.4

Levels = Callable[[np.random.Generator, int, float], Floats]


def _independent(random: np.random.Generator, devices: int, sd: float) -> Floats:
    return random.normal(0, sd, (devices, SESSIONS))


def _drift(random: np.random.Generator, devices: int, sd: float) -> Floats:
    return _independent(random, devices, sd) + np.linspace(0, math.log(1.15), SESSIONS)


def _curved(random: np.random.Generator, devices: int, sd: float) -> Floats:
    warming = math.log(1.15) * (1 - np.exp(-np.arange(SESSIONS) / 5))
    return _independent(random, devices, sd) + warming


def _correlated(random: np.random.Generator, devices: int, sd: float) -> Floats:
    levels = random.normal(0, sd, (devices, SESSIONS))
    for at in range(1, SESSIONS):
        levels[:, at] = 0.7 * levels[:, at - 1] + math.sqrt(1 - 0.7**2) * levels[:, at]
    return levels


def _alternating(random: np.random.Generator, devices: int, sd: float) -> Floats:
    levels = random.normal(0, sd, (devices, SESSIONS))
    for at in range(1, SESSIONS):
        levels[:, at] = -0.5 * levels[:, at - 1] + math.sqrt(1 - 0.5**2) * levels[:, at]
    return levels


def _heavy(random: np.random.Generator, devices: int, sd: float) -> Floats:
    return random.standard_t(3, (devices, SESSIONS)) * sd / math.sqrt(3)


def _steps(random: np.random.Generator, devices: int, sd: float) -> Floats:
    begins = random.integers(1, SESSIONS, (devices, 1))
    throttled = np.arange(SESSIONS) >= begins
    return _independent(random, devices, sd) + math.log(1.2) * throttled


def _busy(random: np.random.Generator, devices: int, sd: float) -> Floats:
    busy = random.random((devices, SESSIONS)) < 0.05
    return _independent(random, devices, sd) + math.log(1.25) * busy


@dataclass(frozen=True)
class Kind:
    """One kind of simulated device."""

    name: str
    about: str
    levels: Levels


KINDS = (
    Kind("independent", "sessions are independent and normal", _independent),
    Kind("drift", "and 15 % slower at the end than at the beginning, evenly", _drift),
    Kind("warming", "and 15 % slower at the end, most of it early", _curved),
    Kind("autocorrelated", "each session is like the one before (AR(1), 0.7)", _correlated),
    Kind("alternating", "each session is unlike the one before (AR(1), -0.5)", _alternating),
    Kind("heavy tails", "Student's t with 3 degrees of freedom", _heavy),
    Kind("thermal step", "20 % slower from some session on, never by the gate noticed", _steps),
    Kind("busy", "one session in twenty is 25 % slower", _busy),
)


@dataclass(frozen=True)
class Measured:
    """What was measured of many devices of a kind, in the order of time.

    ``sessions`` are session medians in ms, of shape (devices, sessions); ``iterations`` has one
    axis more.
    """

    sessions: Floats
    iterations: Floats


def measure(random: np.random.Generator, kind: Kind, sd: float, devices: int) -> Measured:
    """The same file in every session, on ``devices`` devices: nothing here is base or head."""
    levels = kind.levels(random, devices, sd)
    noise = random.normal(0, WITHIN_SD, (*levels.shape, ITERATIONS))
    for at in range(1, ITERATIONS):
        fresh = math.sqrt(1 - WITHIN_CORRELATION**2) * noise[..., at]
        noise[..., at] = WITHIN_CORRELATION * noise[..., at - 1] + fresh
    noise += SPIKE * (random.random(noise.shape) < SPIKES)
    iterations = 10 * np.exp(levels[..., None] + noise)
    return Measured(np.median(iterations, axis=-1), iterations)


def abba(pairs: int) -> tuple[list[int], list[int]]:
    """Positions in time of base's and of head's sessions, pair by pair."""
    base = [2 * pair + (pair % 2) for pair in range(pairs)]
    head = [2 * pair + 1 - (pair % 2) for pair in range(pairs)]
    return base, head
