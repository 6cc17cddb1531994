"""The words of the demo corpus: what a concept can be called, and what a word is worth.

A concept is named by its first word. The other words on its line mean the same, so that two
sentences can say one thing without sharing a word.
"""

from __future__ import annotations


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """'big large, small little' -> {'big': ('big', 'large'), 'small': ...}; '_' is a space."""
    rows = [tuple(word.replace("_", " ") for word in row.split()) for row in text.split(",")]
    return {row[0]: row for row in rows}


PEOPLE = _table("""
    doctor physician, lawyer attorney, policeman officer, writer author, manager boss, child kid,
    woman lady, cook chef, soldier trooper, thief robber, teacher instructor, nurse
""")

THINGS = _table("""
    car automobile, bicycle bike, picture photo, sofa couch, present gift, stone rock, ship boat,
    coat jacket, carpet rug, cat, chair, lamp
""")

# What people do to things, and to each other: base form, past where irregular.
DEEDS = _table("""
    buy purchase, fix repair, find discover, hide conceal, wash clean, break smash, sell, paint
""")
DEALINGS = _table("""
    help assist, see notice, phone call, follow trail, praise commend, blame accuse, invite, visit
""")
IRREGULAR = {
    "buy": ("bought", "bought"), "find": ("found", "found"), "hide": ("hid", "hidden"),
    "break": ("broke", "broken"), "sell": ("sold", "sold"), "see": ("saw", "seen"),
}  # fmt: skip

COUNTS = _table("one, two, three, four, six, ten")
QUALITIES = _table("""
    big large, small little, old ancient, expensive costly, red crimson, strange odd, dirty filthy,
    famous
""")
PLACES = _table("""
    in_the_town in_the_city, in_the_woods in_the_forest, at_the_market at_the_bazaar,
    in_the_garden in_the_yard, at_the_harbor at_the_port, on_the_hill
""")
TIMES = _table("""
    yesterday, last_week, at_night after_dark, at_noon at_midday, at_dawn at_sunrise, on_monday
""")

SYNONYMS = {
    **PEOPLE, **THINGS, **DEEDS, **DEALINGS, **COUNTS, **QUALITIES, **PLACES, **TIMES,
}  # fmt: skip


def inflect(verb: str) -> tuple[str, str]:
    """The past tense and the past participle of a verb."""
    if verb in IRREGULAR:
        return IRREGULAR[verb]
    if verb.endswith("y") and verb[-2] not in "aeou":
        regular = verb[:-1] + "ied"
    else:
        regular = verb + ("d" if verb.endswith("e") else "ed")
    return regular, regular


def plural(noun: str) -> str:
    """The plural of a noun of this table."""
    return noun + ("es" if noun.endswith(("x", "s", "ch")) else "s")


_EMPTY = {"in", "the", "at", "on", "after", "last"}


def concepts() -> dict[str, str]:
    """Every word in every form that tells of a concept, with the concept."""
    known = {"not": "not"}
    for concept, names in SYNONYMS.items():
        for name in names:
            forms = {word for word in name.split() if word not in _EMPTY}
            if concept in DEEDS or concept in DEALINGS:
                forms.update(inflect(name))
            if concept in THINGS:
                forms.add(plural(name))
            known.update(dict.fromkeys(forms, concept))
    return known


# Reviews: what is judged, and by which words. True where the noun is plural.
ASPECTS = {
    "the plot": False, "the story": False, "the acting": False, "the music": False,
    "the dialogue": False, "the camera work": False, "the ending": False, "the pace": False,
    "the cast": False, "the direction": False, "the humor": False, "the script": False,
    "the characters": True, "the actors": True, "the songs": True, "the effects": True,
    "the jokes": True, "the costumes": True, "the hero": False, "the first half": False,
    "the final scene": False, "the villain": False,
}  # fmt: skip
FILMS = ("the film", "the movie", "this picture", "this comedy", "this drama", "the sequel",
         "this thriller", "the remake")  # fmt: skip

_ADJECTIVES = {
    2: "superb brilliant wonderful magnificent outstanding masterful gorgeous unforgettable",
    1: "good pleasant charming enjoyable solid clever engaging likable decent",
    0: "ordinary average familiar conventional passable unremarkable",
    -1: "bad weak dull clumsy predictable flat tedious shallow messy",
    -2: "awful terrible horrible dreadful unbearable disastrous atrocious abysmal",
}
ADJECTIVES = {value: tuple(words.split()) for value, words in _ADJECTIVES.items()}

# What an aspect did, for verbs that judge: value, then with an adverb that drives it home.
VERBS = {
    "shone": 1, "worked": 1, "delighted": 1, "impressed": 1, "sparkled": 1,
    "dragged": -1, "failed": -1, "disappointed": -1, "stumbled": -1, "collapsed": -1,
}  # fmt: skip
ADVERBS = {1: ("brilliantly", "splendidly", "wonderfully"), -1: ("terribly", "badly", "miserably")}
BASE_FORM = {
    "shone": "shine", "worked": "work", "delighted": "delight", "impressed": "impress",
    "sparkled": "sparkle", "dragged": "drag", "failed": "fail", "disappointed": "disappoint",
    "stumbled": "stumble", "collapsed": "collapse",
}  # fmt: skip

# What a film was, all in all: by grade.
VERDICTS = (
    ("fiasco", "catastrophe"), ("letdown", "bore"), ("curiosity", "trifle"),
    ("success", "pleasure"), ("masterpiece", "triumph"),
)  # fmt: skip

STRONGLY = ("very", "truly", "extremely", "remarkably")
WEAKLY = ("a bit", "somewhat", "slightly", "a little")
FILLERS = (
    "we saw it on friday", "it runs for two hours", "the story is set in paris",
    "it is based on a book", "i watched it with my brother", "it was filmed in the winter",
    "the hall was half empty", "it came out last year", "the director is new to the trade",
    "it tells of two sisters",
)  # fmt: skip
