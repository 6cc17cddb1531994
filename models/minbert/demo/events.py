"""Meanings of the demo corpus's sentence pairs: who did what, to what, where and when.

An Event is what a sentence means, a Style is how it is said. Paraphrases are one Event in two
Styles; near-misses are two Events that differ in one part, said in (nearly) the same Style.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from random import Random

from .words import (
    COUNTS,
    DEALINGS,
    DEEDS,
    PEOPLE,
    PLACES,
    QUALITIES,
    SYNONYMS,
    THINGS,
    TIMES,
    inflect,
    plural,
)

# How much of a sentence's meaning each part carries; similarity is the weighted share in common.
WEIGHTS = {
    "agent": 1.0, "verb": 1.5, "patient": 1.0, "count": 0.5,
    "quality": 0.25, "place": 0.25, "time": 0.25,
}  # fmt: skip
CIRCUMSTANCES = ("quality", "place", "time")  # may go unsaid in a paraphrase
VOICES = ("active", "passive", "cleft")


@dataclass(frozen=True)
class Event:
    """What a sentence means, in concepts (the first words of `words`' lines).

    `count` and `quality` describe a thing and are None where the patient is a person; `quality`
    and one or both of `place` and `time` may be None: left unsaid.
    """

    agent: str
    verb: str
    patient: str
    count: str | None
    quality: str | None
    place: str | None
    time: str | None
    negated: bool = False

    @property
    def is_dealing(self) -> bool:
        """Whether both parties are people, so that they can change places."""
        return self.patient in PEOPLE

    def part(self, name: str) -> object:
        """One part of the meaning; a denied deed is another deed."""
        value = getattr(self, name)
        return (value, self.negated) if name == "verb" else value


@dataclass(frozen=True)
class Style:
    """How an Event is said: its voice, whether place or time come first, synonyms (by `seed`)."""

    voice: str
    fronted: bool
    seed: int

    def word(self, concept: str) -> str:
        """The word that this style uses for a concept, always the same one."""
        words = SYNONYMS[concept]
        return words[zlib.crc32(f"{self.seed}/{concept}".encode()) % len(words)]


def draw_style(rng: Random) -> Style:
    """A style at random; most sentences are in the active voice and begin with the agent."""
    voice = rng.choices(VOICES, (5, 4, 1))[0]
    return Style(voice, rng.random() < 0.4, rng.randrange(1 << 30))


def _pick(rng: Random, table: dict, unlike: str | None = None) -> str:
    """A concept of the table, another one than `unlike`."""
    return rng.choice([concept for concept in table if concept != unlike])


def draw_event(rng: Random) -> Event:
    """An event at random."""
    dealing = rng.random() < 0.4
    agent = _pick(rng, PEOPLE)
    setting = rng.choice(("place", "time", "none"))
    return Event(
        agent=agent,
        verb=_pick(rng, DEALINGS if dealing else DEEDS),
        patient=_pick(rng, PEOPLE, agent) if dealing else _pick(rng, THINGS),
        count=None if dealing else _pick(rng, COUNTS),
        quality=_pick(rng, QUALITIES) if not dealing and rng.random() < 0.6 else None,
        place=_pick(rng, PLACES) if setting == "place" else None,
        time=_pick(rng, TIMES) if setting == "time" else None,
        negated=rng.random() < 0.15,
    )


def changeable(event: Event) -> list[str]:
    """The parts of an event that are said, and so can be said wrongly."""
    return [name for name in WEIGHTS if getattr(event, name) is not None]


def change(event: Event, part: str, rng: Random) -> Event:
    """The event with one part replaced by another concept of its kind."""
    tables = {
        "agent": PEOPLE,
        "verb": DEALINGS if event.is_dealing else DEEDS,
        "patient": PEOPLE if event.is_dealing else THINGS,
        "count": COUNTS,
        "quality": QUALITIES,
        "place": PLACES,
        "time": TIMES,
    }
    taken = {event.agent, event.patient}
    table = {c: w for c, w in tables[part].items() if part == "verb" or c not in taken}
    parts = {name: getattr(event, name) for name in WEIGHTS}
    parts[part] = _pick(rng, table, parts[part])
    return replace(event, **parts)


def swap_roles(event: Event) -> Event:
    """The event with doer and done-to exchanged."""
    return replace(event, agent=event.patient, patient=event.agent)


def negate(event: Event) -> Event:
    """The event denied, or no longer denied."""
    return replace(event, negated=not event.negated)


def similarity(first: Event, second: Event) -> float:
    """0 to 5: five times the weighted share of parts that the two events have in common."""
    said = [n for n in WEIGHTS if getattr(first, n) is not None or getattr(second, n) is not None]
    common = sum(WEIGHTS[name] for name in said if first.part(name) == second.part(name))
    return round(5 * common / sum(WEIGHTS[name] for name in said), 1)


def _patient(event: Event, style: Style) -> tuple[str, bool]:
    """The patient's noun phrase and whether it is plural."""
    noun = style.word(event.patient)
    if event.count is None:  # a person
        return f"the {noun}", False
    quality = f"{style.word(event.quality)} " if event.quality else ""
    many = event.count != "one"
    return f"{style.word(event.count)} {quality}{plural(noun) if many else noun}", many


def _core(event: Event, style: Style) -> str:
    """The sentence without its place and time."""
    agent, (patient, many) = f"the {style.word(event.agent)}", _patient(event, style)
    base = style.word(event.verb)
    past, participle = inflect(base)
    if style.voice == "passive":
        auxiliary = ("were" if many else "was") + (" not" if event.negated else "")
        return f"{patient} {auxiliary} {participle} by {agent}"
    deed = f"did not {base}" if event.negated else past
    if style.voice == "cleft":
        return f"it was {agent} who {deed} {patient}"
    return f"{agent} {deed} {patient}"


def say(event: Event, style: Style) -> str:
    """The event as an English sentence."""
    body, setting = _core(event, style), event.place or event.time
    if setting:
        where = style.word(setting)
        body = f"{where}, {body}" if style.fronted else f"{body} {where}"
    return body[0].upper() + body[1:] + "."


def leave_out(event: Event, rng: Random) -> Event:
    """The event without some of its circumstances."""
    quality, place, time = (
        None if rng.random() < 0.35 else getattr(event, name) for name in CIRCUMSTANCES
    )
    return replace(event, quality=quality, place=place, time=time)


@dataclass(frozen=True)
class Pair:
    """Two sentences, whether they tell of the same event, and their similarity, 0 to 5."""

    first: str
    second: str
    same: bool
    similarity: float


def _pair(one: Event, other: Event, same: bool, rng: Random, alike: float) -> Pair:
    """Say two events in either order; `alike` is the chance of one style for both."""
    if rng.random() < 0.5:
        one, other = other, one
    style = draw_style(rng)
    second = style if rng.random() < alike else draw_style(rng)
    return Pair(say(one, style), say(other, second), same, similarity(one, other))


def reworded_pair(rng: Random) -> Pair:
    """Two different sentences about one event; one may leave circumstances out."""
    event = draw_event(rng)
    while True:
        pair = _pair(event, leave_out(event, rng), True, rng, alike=0.1)
        if pair.first != pair.second:
            return pair


def missed_pair(rng: Random) -> Pair:
    """Two sentences that look alike and tell of different events."""
    event = draw_event(rng)
    if rng.random() < 0.1:
        return _pair(event, draw_event(rng), False, rng, alike=0.0)
    return _pair(event, leave_out(near_miss(event, rng), rng), False, rng, alike=0.5)


def paraphrase_pair(rng: Random) -> Pair:
    """A pair that means the same, or (more often) only looks like it."""
    return reworded_pair(rng) if rng.random() < 0.42 else missed_pair(rng)


def near_miss(event: Event, rng: Random) -> Event:
    """Another event that shares most of its words: roles, a number, a denial, one concept."""
    kind = rng.random()
    if event.is_dealing and kind < 0.25:
        return swap_roles(event)
    if not event.is_dealing and kind < 0.25:
        return change(event, "count", rng)
    if kind < 0.45:
        return negate(event)
    return change(event, rng.choice(("agent", "verb", "patient")), rng)


def similar_pair(rng: Random) -> Pair:
    """Two sentences that share all, some or none of their meaning."""
    event = draw_event(rng)
    other = event
    if rng.random() < 0.12:
        other = draw_event(rng)
    else:
        parts = changeable(event)
        for part in rng.sample(parts, rng.randint(0, len(parts))):
            other = change(other, part, rng)
        if rng.random() < 0.1:
            other = negate(other)
    return _pair(event, leave_out(other, rng), event == other, rng, alike=0.3)
