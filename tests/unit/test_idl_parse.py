"""What a description says, and in which line it is wrong."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luod.interface import description
from luod.varlink import idl
from luod.varlink.idl import Definition, DescriptionError, Enum, Field, Method, Struct, Type

EVERYTHING = """\
# A licence, which documents nothing.

# Shows all there is.
#   And an indented line.
interface org.example-1.x--y.all

# Not of Everything: a blank line follows.

# One field of each.
type Everything (
  # A truth.
  yes: bool, # not of the next
  whole: int,
  broken: float,
  words: string, any: object,
  choice: (one, two_2, Three),
  inner: (first: int, second: (third: ?[]string)),
  list: []string, lists: [][]int, table: [string]int, set: [string](),
  maybe: ?string, maybes: []?int, all: ?[][string]?(deep: Empty) # last
  # Nothing follows.
)
type Empty ()\ttype Choice(type,method)
method Do(interface: Everything)->(error: ?Choice)# Not of Failed.
error Failed ( why : string )
"""


def field(name: str, base: str | Struct | Enum, *wrappers: str, doc: str = "") -> Field:
    return Field(name, Type(wrappers, base), doc)


def test_every_construct_of_the_grammar_is_read():
    everything = Struct(
        (
            field("yes", "bool", doc="A truth."),
            field("whole", "int"),
            field("broken", "float"),
            field("words", "string"),
            field("any", "object"),
            field("choice", Enum(("one", "two_2", "Three"))),
            field(
                "inner",
                Struct((field("first", "int"), field("second", Struct((field("third", "string", "?", "[]"),))))),
            ),
            field("list", "string", "[]"),
            field("lists", "int", "[]", "[]"),
            field("table", "int", "[string]"),
            field("set", Struct(()), "[string]"),
            field("maybe", "string", "?"),
            field("maybes", "int", "[]", "?"),
            field("all", Struct((field("deep", "Empty"),)), "?", "[]", "[string]", "?"),
        )
    )
    assert idl.parse(EVERYTHING) == idl.Interface(
        "org.example-1.x--y.all",
        "Shows all there is.\n  And an indented line.",
        {
            "Everything": Definition(everything, "One field of each."),
            "Empty": Definition(Struct(()), ""),
            "Choice": Definition(Enum(("type", "method")), ""),
        },
        {"Do": Method(Struct((field("interface", "Everything"),)), Struct((field("error", "Choice", "?"),)), "")},
        {"Failed": Definition(Struct((field("why", "string"),)), "")},
    )
    assert idl.parse(EVERYTHING.replace("\n", "\r\n")) == idl.parse(EVERYTHING)


@pytest.mark.parametrize("name", ["io.luod.Custody", "io.luod.Update", "org.varlink.service"])
def test_our_own_descriptions_are_read(name):
    interface = idl.parse(description(name))
    assert interface.name == name
    assert interface.doc
    assert interface.methods
    assert interface.errors


def test_a_member_is_documented_by_the_comment_above_it():
    service = idl.parse(description("org.varlink.service"))
    assert service.methods["GetInterfaceDescription"].doc.startswith("Get the description of an interface")
    assert service.errors["PermissionDenied"].doc == "Client is denied access"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: expected interface, not the end"),
        ("\n# nothing\n", "line 3: expected interface, not the end"),
        ("interface", "line 1: expected an interface's name, not the end"),
        ("interface example", "line 1: expected an interface's name, not example"),
        ("interface org.example-", "line 1: expected an interface's name, not org.example-"),
        ("interface a.b\n\nmethd Do() -> ()", "line 3: expected type, method or error, not methd"),
        ("interface a.b\ninterface a.c", "line 2: expected type, method or error, not interface"),
        ("interface a.b\nmethod do() -> ()", "line 2: expected a name that starts with a capital, not do"),
        ("interface a.b\nmethod Do()\n -> \n", "line 4: expected (, not the end"),
        ("interface a.b\nmethod Do() ()", "line 2: expected ->, not ("),
        ("interface a.b\nmethod Do(a, b) -> ()", "line 2: expected fields with types, not an enum"),
        ("interface a.b\nmethod Do() -> ()\nerror E(a)", "line 3: expected fields with types, not an enum"),
        ("interface a.b\nmethod Do() -> ()\nerror E", "line 3: expected (, not the end"),
        ("interface a.b\ntype A (a: int,\n b)", "line 3: expected :, not )"),
        ("interface a.b\ntype A (a,\n b: int)", "line 3: expected , or ), not :"),
        ("interface a.b\ntype A (a: int\n b: int)", "line 3: expected , or ), not b"),
        ("interface a.b\ntype A (a: int,\n)", "line 3: expected a field's name, not )"),
        ("interface a.b\ntype A (a: int,\n a: int)", "line 3: a is there already"),
        ("interface a.b\ntype A (a,\n a)", "line 3: a is there already"),
        ("interface a.b\ntype A (a_: int)", "line 2: expected a field's name, not a_"),
        ("interface a.b\ntype A (1a: int)", "line 2: expected a field's name, not 1a"),
        ("interface a.b\ntype A (\n a: integer)", "line 3: expected a type, not integer"),
        ("interface a.b\ntype A (\n a: ??int)", "line 3: a type can't be nullable twice"),
        ("interface a.b\ntype A (\n a: [int]int)", "line 3: expected a type, not ["),
        ("interface a.b\ntype A (\n a: B)", "line 3: there is no type B"),
        ("interface a.b\nmethod B() -> ()\ntype A (a: B)", "line 3: there is no type B"),
        ("interface a.b\ntype A ()\nerror A ()", "line 3: A is there already"),
        ("interface a.b\ntype A []int", "line 2: expected (, not []"),
        ("interface a.b\ntype A ()\n$", "line 3: expected type, method or error, not $"),
        ("interface a.b\ntype A " + "\n(a:" * 40, "line 35: nested deeper than 32 levels"),
    ],
)
def test_what_breaks_the_grammar_is_told_with_its_line(text, reason):
    with pytest.raises(DescriptionError) as caught:
        idl.parse(text)
    assert str(caught.value) == reason
    assert caught.value.line == int(reason.partition(":")[0].removeprefix("line "))


def test_a_long_description_is_read_in_time_that_grows_with_its_length():
    start = time.process_time()
    interface = idl.parse("interface a.b\n" + "".join(f"# Doc.\nmethod M{i}(a: [][]int) -> ()\n" for i in range(3000)))
    assert len(interface.methods) == 3000
    with pytest.raises(DescriptionError):
        idl.parse("interface a.b\ntype A (a: " + "[]" * 100_000)
    with pytest.raises(DescriptionError):
        idl.parse("interface " + "a-" * 100_000)
    assert time.process_time() - start < 5


@given(
    st.lists(st.sampled_from([*EVERYTHING.split(), "(", ")", ",", ":", "?", "[]", "->", "\n", "#", "é"]), max_size=30)
)
def test_any_text_is_read_or_refused(words):
    text = "interface a.b " + " ".join(words)
    try:
        interface = idl.parse(text)
    except DescriptionError as error:
        assert 1 <= error.line <= text.count("\n") + 1  # noqa: PT017
    else:
        assert interface.name == "a.b"
