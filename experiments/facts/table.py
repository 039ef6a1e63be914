"""Stanford-40's actions as facts, one by one, and the facts that are about sports and music."""

from collections.abc import Sequence

from experiments.facts.types import Fact

# Base verbs and singular nouns, so that one word has one vector. Every word is among the 10,362
# of GloVe that are at hand; where the obvious one is not, the nearest in meaning stands for it:
#   applause (applaud, clap), teeth (tooth), disc (frisbee), bow (arrow), strings (violin),
#   lens (microscope), observatory (telescope).
# The same words are used with larger vocabularies, so that a fact is the same everywhere.
_WORDS = {
    "applauding": ("applause", ""),
    "blowing_bubbles": ("blow", "bubble"),
    "brushing_teeth": ("brush", "teeth"),
    "cleaning_the_floor": ("clean", "floor"),
    "climbing": ("climb", ""),
    "cooking": ("cook", ""),
    "cutting_trees": ("cut", "tree"),
    "cutting_vegetables": ("cut", "vegetable"),
    "drinking": ("drink", ""),
    "feeding_a_horse": ("feed", "horse"),
    "fishing": ("fish", ""),
    "fixing_a_bike": ("fix", "bike"),
    "fixing_a_car": ("fix", "car"),
    "gardening": ("garden", ""),
    "holding_an_umbrella": ("hold", "umbrella"),
    "jumping": ("jump", ""),
    "looking_through_a_microscope": ("look", "lens"),
    "looking_through_a_telescope": ("look", "observatory"),
    "phoning": ("phone", ""),
    "playing_guitar": ("play", "guitar"),
    "playing_violin": ("play", "strings"),
    "pouring_liquid": ("pour", "liquid"),
    "pushing_a_cart": ("push", "cart"),
    "reading": ("read", ""),
    "riding_a_bike": ("ride", "bike"),
    "riding_a_horse": ("ride", "horse"),
    "rowing_a_boat": ("row", "boat"),
    "running": ("run", ""),
    "shooting_an_arrow": ("shoot", "bow"),
    "smoking": ("smoke", ""),
    "taking_photos": ("take", "photo"),
    "texting_message": ("text", "message"),
    "throwing_frisby": ("throw", "disc"),
    "using_a_computer": ("use", "computer"),
    "walking_the_dog": ("walk", "dog"),
    "washing_dishes": ("wash", "dish"),
    "watching_TV": ("watch", "television"),
    "waving_hands": ("wave", "hand"),
    "writing_on_a_board": ("write", "board"),
    "writing_on_a_book": ("write", "book"),
}
STANFORD40 = {name: Fact("person", *words) for name, words in _WORDS.items()}

# Seven, as many as the paper's "person playing sports": what is done for sport at the Olympic or
# the World Games. Left out: fishing, a pastime in these pictures, and jumping, mostly for joy.
_SPORTS = ("climb", "ride", "row", "run", "shoot", "throw")
SPORTS = tuple(fact for fact in STANFORD40.values() if fact.predicate in _SPORTS)
MUSIC = tuple(fact for fact in STANFORD40.values() if fact.predicate == "play")


def facts_of(actions: Sequence[str]) -> tuple[Fact, ...]:
    """Translate Stanford-40's names of actions, in the order they are given.

    Args:
      actions: names as in the data set's files; for labels that number the sorted names, the
        sorted names.

    Returns:
      A fact for each.

    Raises:
      ValueError: a name (given) is none of the forty.

    >>> [str(fact) for fact in facts_of(["riding_a_horse", "running"])]
    ['<person, ride, horse>', '<person, run>']
    """
    unknown = [action for action in actions if action not in STANFORD40]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not an action of Stanford-40; wanted its names as they are in the "
            f"data set, from {min(STANFORD40)!r} to {max(STANFORD40)!r}"
        )
    return tuple(STANFORD40[action] for action in actions)
