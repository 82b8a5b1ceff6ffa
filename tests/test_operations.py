"""The words of `--do`: what is read, and what is refused, beside each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language_neurons_alignment._operations import Operation, Step, Steps, Term, parse_step
from language_neurons_alignment.errors import SettingsError

FR = ((False, Term("fr")),)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("zero fr", Step(Operation("zero"), FR)),
        ("  zero   French ", Step(Operation("zero"), FR)),
        ("scale:2 fr", Step(Operation("scale", amount=2.0), FR)),
        ("scale:-1e-2 fr", Step(Operation("scale", amount=-0.01), FR)),
        ("set:0.5 fr", Step(Operation("set", amount=0.5), FR)),
        ("mean:en fr", Step(Operation("mean", "en"), FR)),
        ("replace:English fr", Step(Operation("mean", "en"), FR)),
        ("add:zh:-0.5 fr", Step(Operation("add", "zh", -0.5), FR)),
        ("diffmean:target source", Step(Operation("diffmean", "target"), ((False, Term("source")),))),
        ("ban expert:3.12", Step(Operation("ban"), ((False, Term(expert=(3, 12))),))),
        ("boost:-2 expert:0.1", Step(Operation("boost", amount=-2.0), ((False, Term(expert=(0, 1))),))),
        ("zero fr - expert:0.1", Step(Operation("zero"), ((False, Term("fr")), (True, Term(expert=(0, 1)))))),
        ("zero fr - layers:0-9", Step(Operation("zero"), ((False, Term("fr")), (True, Term(layers=(0, 9)))))),
        ("scale:2 layers:3-3", Step(Operation("scale", amount=2.0), ((False, Term(layers=(3, 3))),))),
        ("zero fr:specific", Step(Operation("zero"), ((False, Term("fr", ("specific",))),))),
        ("zero fr:general,specific", Step(Operation("zero"), ((False, Term("fr", ("specific", "general"))),))),
        ("zero @a b.csv", Step(Operation("zero"), ((False, Term(file="a b.csv")),))),
        ("zero @x/mask.L#pt-BR", Step(Operation("zero"), ((False, Term("pt-BR", file="x/mask.L")),))),
        (
            "zero fr + @a.json  -  de:general",
            Step(
                Operation("zero"),
                ((False, Term("fr")), (False, Term(file="a.json")), (True, Term("de", ("general",)))),
            ),
        ),
    ],
)
def test_a_step_is_read_and_written_back_as_the_same(text: str, step: Step) -> None:
    assert parse_step(text) == step
    assert parse_step(str(step)) == step


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "names no neurons"),
        ("zero", "names no neurons after 'zero'"),
        ("zero   ", "names no neurons"),
        ("double fr", "unknown operation 'double': choose from zero, scale:a, set:v"),
        ("Zero fr", "unknown operation 'Zero'"),
        ("zero:1 fr", "other values than none"),
        ("scale fr", "other values than a number"),
        ("ban fr", "acts on experts, and fr is none: name them as expert:LAYER.NUMBER"),
        ("ban:1 expert:0.1", "other values than none"),
        ("zero expert:3", "'expert:3' names no expert: write expert:LAYER.NUMBER"),
        ("zero layers:3", "'layers:3' names no layers: write layers:FIRST-LAST"),
        ("zero fr - layers:4-3", "'layers:4-3' names no layers"),
        ("ban layers:0-1", "acts on experts, and layers:0-1 is none"),
        ("scale:1:2 fr", "other values than a number"),
        ("add:en fr", "other values than a language and a number"),
        ("add:0.5:en fr", "unknown language '0.5'"),
        ("mean: fr", "other values than a language"),
        ("scale:nan fr", "'nan' must be a finite number"),
        ("set:-inf fr", "'-inf' must be a finite number"),
        ("set:1e999 fr", "must be a finite number"),
        ("set:two fr", "must be a finite number"),
        ("mean:Klingonese fr", "unknown language 'Klingonese'"),
        ("zero Klingonese", "unknown language 'Klingonese'"),
        ("zero fr:typo", "--classes must be one of specific, related, general"),
        ("zero fr:", "--classes"),
        ("zero fr +", "unknown language 'fr +'"),
        ("zero fr + + de", "unknown language '+ de'"),
        ("zero fr de", "unknown language 'fr de'"),
    ],
)
def test_what_cannot_be_is_said_with_the_step(text: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Steps.parse([text])
    assert str(refused.value).startswith(f"the step {text!r} cannot be done: ")
    assert named in str(refused.value)


def test_a_number_has_one_way_to_be_written() -> None:
    assert Steps.parse("scale:2 fr") == Steps.parse(["scale:2.0 fr"]) == Steps.parse("scale:20e-1 fr")
    assert Steps.parse("set:-0 fr") == Steps.parse("set:0 fr")
    assert Steps.parse("set:0.1 fr").texts == ("set:0.1 fr",)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_written(number: float) -> None:
    operation = parse_step(f"set:{number!r} fr").operation
    assert operation.amount == number
    assert parse_step(f"{operation} fr").operation == operation


def test_words_stand_for_languages_until_they_are_bound() -> None:
    doing = Steps.parse(["zero source", "add:target:2 each - source", "zero @m#target"])
    assert doing.words == {"each", "source", "target"}
    bound = doing.bind(source="fr", target="de")
    assert bound.words == {"each"}
    assert bound.bind(each="en").texts == ("zero fr", "add:de:2 en - fr", "zero @m#de")
    assert Steps.parse("zero fr").bind(each="en") == Steps.parse("zero fr")


def test_what_it_needs_is_known_without_a_model() -> None:
    assert Steps.parse(["mean:en fr", "add:de:1 fr", "mean:en zh"]).means == ("en", "de")
    assert Steps.parse("zero fr").means == ()
    for text, needs in {
        "zero fr": True,
        "zero @a.csv": False,
        "mean:en @a.csv - fr": True,
        "mean:en @a.csv": False,
        "zero @m#fr": False,
        "diffmean:en @a.csv": True,
    }.items():
        assert Steps.parse(text).needs_mask is needs, text


def test_steps_are_told_apart_in_file_names_and_the_usual_ones_are_not_named() -> None:
    assert Steps.parse("zero  each").variant(["zero each"]) == ""
    assert Steps.parse("zero each").variant(["zero source"]) != ""
    texts = [
        ["zero fr"],
        ["zero fr + de"],
        ["zero fr - de"],
        ["scale:-1 fr"],
        ["scale:1 fr"],
        ["zero @a/b.csv"],
        ["zero fr", "zero de"],
        ["zero de", "zero fr"],
        ["add:en:0.5 each + @a-very-long/name-of-a-file-that-goes-on-and-on.json"],
    ]
    names = [Steps.parse(text).variant(["zero each"]) for text in texts]
    assert len({name.lower() for name in names}) == len(names)
    for dot, *rest in names:
        slug = "".join(rest)
        assert dot == "."
        assert len(slug) <= 50
        assert all(character.isascii() and (character.isalnum() or character in "-.") for character in slug)
        assert slug[0] not in "-."
