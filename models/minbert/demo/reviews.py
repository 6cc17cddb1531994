"""Sentiment of the demo corpus: clauses with a value from -2 to 2, and how values combine.

An intensifier drives a value outwards, a hedge pulls it in, negation turns it around and takes
some of it away ("not awful" is no praise), and after "but" or "although" the main clause counts.
"""

from __future__ import annotations

from random import Random

from .words import (
    ADJECTIVES,
    ADVERBS,
    ASPECTS,
    BASE_FORM,
    FILLERS,
    FILMS,
    STRONGLY,
    VERBS,
    VERDICTS,
    WEAKLY,
)

GRADES = 5
_LIMITS = (-1.25, -0.4, 0.4, 1.25)  # between grades 0|1|2|3|4
_NEGATED = {2: -0.6, 1: -1.0, 0: 0.0, -1: 0.6, -2: 0.3}


def grade(value: float) -> int:
    """The grade 0 to 4 of a value from -2 to 2."""
    return sum(value > limit for limit in _LIMITS)


def _adjective(rng: Random) -> tuple[str, float]:
    """An adjective phrase and its value."""
    strength = rng.choices((2, 1, 0, -1, -2), (3, 5, 2, 5, 3))[0]
    word = rng.choice(ADJECTIVES[strength])
    kind = rng.random()
    if kind < 0.45 or strength == 0:
        return word, float(strength)
    if kind < 0.6:
        strong = ("absolutely", "utterly") if abs(strength) == 2 else STRONGLY
        return f"{rng.choice(strong)} {word}", 2.0 if strength > 0 else -2.0
    if kind < 0.7:
        return f"{rng.choice(WEAKLY)} {word}", strength * (0.5 if abs(strength) == 2 else 0.3)
    if kind < 0.9 or abs(strength) == 2:
        return f"not {word}", _NEGATED[strength]
    return f"not at all {word}", -1.0 * strength


def _verb(rng: Random) -> tuple[str, float]:
    """A verb phrase that judges, and its value."""
    verb = rng.choice(tuple(VERBS))
    value = VERBS[verb]
    kind = rng.random()
    if kind < 0.4:
        return verb, float(value)
    if kind < 0.75:
        return f"{verb} {rng.choice(ADVERBS[value])}", 2.0 * value
    return f"did not {BASE_FORM[verb]}", -1.0 if value > 0 else 0.6


def clause(rng: Random) -> tuple[str, float]:
    """A judgement of the film or of an aspect of it, and its value."""
    if rng.random() < 0.3:
        subject, many = rng.choice(FILMS), False
    else:
        subject = rng.choice(tuple(ASPECTS))
        many = ASPECTS[subject]
    if rng.random() < 0.3:
        phrase, value = _verb(rng)
        return f"{subject} {phrase}", value
    phrase, value = _adjective(rng)
    return f"{subject} {'were' if many else 'was'} {phrase}", value


def _expectation(rng: Random) -> tuple[str, float]:
    """What was expected or said by others, which does not count, and what it was."""
    hoped = rng.choice(ADJECTIVES[rng.choice((2, -2, 1, -1))])
    text, value = clause(rng)
    opening = rng.choice(("i expected it to be {}", "the critics called it {}"))
    return f"{opening.format(hoped)}, but {text}", value


def _compound(rng: Random) -> tuple[str, float]:
    """Two clauses and the value of the whole."""
    (first, a), (second, b) = clause(rng), clause(rng)
    kind = rng.random()
    if kind < 0.3:
        return f"{first} and {second}", (a + b) / 2
    main = 0.25 * a + 0.75 * b
    if kind < 0.65:
        return f"{first} but {second}", main
    if kind < 0.85:
        return f"although {first}, {second}", main
    return f"{second}, even though {first}", main


def sentence(rng: Random) -> tuple[str, float]:
    """A sentence of a review, without its capital and full stop, and its value."""
    kind = rng.random()
    if kind < 0.35:
        return clause(rng)
    if kind < 0.8:
        return _compound(rng)
    if kind < 0.9:
        return _expectation(rng)
    text, value = clause(rng)
    return f"{rng.choice(FILLERS)} and {text}", value


def finish(text: str) -> str:
    """The text as a sentence on its own."""
    return text[0].upper() + text[1:] + "."


def graded_sentence(rng: Random, wanted: int) -> str:
    """A sentence of the wanted grade, 0 to 4."""
    while True:
        text, value = sentence(rng)
        if grade(value) == wanted:
            return finish(text)


def verdict(rng: Random, wanted: int) -> str:
    """A closing sentence that sums up a judgement of this grade."""
    return rng.choice(("All in all, a {}.", "In short, it was a {}.")).format(
        rng.choice(VERDICTS[wanted])
    )


def review(rng: Random, positive: bool) -> str:
    """A review of four to seven sentences, most of them for one side and none of them decisive."""
    wanted = 1 if positive else -1
    parts: list[str] = []
    for _ in range(rng.randint(4, 7)):
        if rng.random() < 0.15:
            parts.append(finish(rng.choice(FILLERS)))
            continue
        against = rng.random() < 0.2
        parts.append(_sided(rng, -wanted if against else wanted))
    closing = verdict(rng, 2 + 2 * wanted) if rng.random() < 0.5 else _sided(rng, wanted)
    return " ".join([*parts, closing])


def _sided(rng: Random, side: int) -> str:
    """A sentence whose value is clearly on one side."""
    while True:
        text, value = sentence(rng)
        if value * side > 0.4:
            return finish(text)
