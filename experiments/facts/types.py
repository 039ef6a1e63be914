"""What a fact is: a subject, what it does, and what it does that to."""

from typing import NamedTuple


class Fact(NamedTuple):
    """<subject, predicate, object>; "" where a fact has no predicate or no object.

    A fact without a predicate has no object either: there are facts of first, second and third
    order, <S>, <S, P> and <S, P, O>.

    Source: Elhoseiny et al., Sherlock: Scalable fact learning in images, AAAI 2017.

    >>> str(Fact("person", "ride", "horse")), str(Fact("person", "run"))
    ('<person, ride, horse>', '<person, run>')
    """

    subject: str
    predicate: str = ""
    object: str = ""

    def __str__(self) -> str:
        return f"<{', '.join(self).rstrip(', ')}>"
