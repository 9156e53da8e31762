"""What the authority is shown of a call is what the tool gets: bound, copied, in full, without secrets."""

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import typing
import uuid

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_middleware.exceptions import ConfigurationError, ValidationError
from ascend_middleware.mcp.arguments import Binder


def bind(function, *args, **kwargs):
    return Binder(function).bind(args, kwargs)


def test_names_defaults_and_every_kind_of_parameter():
    def tool(a, /, b, c=3, *rest, d, e=5, **others):
        return a, b, c, rest, d, e, others

    call = bind(tool, 1, 2, d=4)
    assert call.shown == {"a": 1, "b": 2, "c": 3, "rest": [], "d": 4, "e": 5, "others": {}}
    assert tool(*call.args, **call.kwargs) == (1, 2, 3, (), 4, 5, {})
    call = bind(tool, 1, 2, 3, 8, 9, d=4, a=7, x=6)
    assert call.shown == {"a": 1, "b": 2, "c": 3, "rest": [8, 9], "d": 4, "e": 5, "others": {"a": 7, "x": 6}}
    assert tool(*call.args, **call.kwargs) == (1, 2, 3, (8, 9), 4, 5, {"a": 7, "x": 6})


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"a": 1}), ((1,), {"z": 1})])
def test_a_wrong_call_is_the_tools_own_type_error(args, kwargs):
    def tool(a):
        return a

    with pytest.raises(TypeError):
        bind(tool, *args, **kwargs)


def test_nobody_shares_what_the_tool_gets():
    def tool(a, b=[1]):  # noqa: B006 - that is the point
        return a, b

    given_list = [[1]]
    call = bind(tool, given_list)
    given_list[0].append(2)
    tool.__defaults__[0].append(2)
    assert call.args == ([[1]], [1]) and call.shown == {"a": [[1]], "b": [1]}


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Point:
    x: int
    inner: object = None


class Pair(typing.NamedTuple):
    left: object
    right: object


class Struct(msgspec.Struct):
    x: object


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: object
    _hidden: str = pydantic.PrivateAttr(default="h")


class Root(pydantic.RootModel[list[int]]):
    pass


SHOWN = [
    (None, None),
    (True, True),
    (1.5, 1.5),
    (float("inf"), "inf"),
    (float("nan"), "nan"),
    (2**70, str(2**70)),
    (-(2**63), -(2**63)),
    ("é", "é"),
    (b"\x00\xff", {"base64": "AP8="}),
    (bytearray(b"a"), {"base64": "YQ=="}),
    ((1, [2, (3,)]), [1, [2, [3]]]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"a"}), ["a"]),
    ({"a": {1: b"x"}}, {"a": {"1": {"base64": "eA=="}}}),
    (pathlib.PurePosixPath("/etc/passwd"), "/etc/passwd"),
    (pathlib.Path("a/b"), "a/b"),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), "2026-01-02T03:00:00+00:00"),
    (datetime.time(3), "03:00:00"),
    (datetime.timedelta(hours=1), "1:00:00"),
    (Colour.RED, "red"),
    (Number.ONE, 1),
    (Word.YES, "yes"),
    (Point(1, Point(2)), {"x": 1, "inner": {"x": 2, "inner": None}}),
    (Pair(1, b"a"), {"left": 1, "right": {"base64": "YQ=="}}),
    (Struct([1]), {"x": [1]}),
    (Model(x=1, y=2), {"x": 1, "y": 2, "_hidden": "h"}),
    (Root([1]), {"root": [1]}),
    (pydantic.AnyUrl("https://a.example/x"), "https://a.example/x"),
]


@pytest.mark.parametrize(("value", "shown"), SHOWN, ids=lambda value: repr(value)[:40])
def test_values_are_shown_in_full(value, shown):
    def tool(a):
        return a

    call = bind(tool, value)
    assert call.shown == {"a": shown}
    assert type(call.args[0]) is type(value)
    assert call.args[0] == value or value != value


class Text(str):
    pass


class Sneaky(dict):
    def items(self):
        return iter(())


class Loose:
    x = 1


class Unplain(Point):
    pass


def beside():
    point = Point(1)
    point.secret = 2
    return point


def cyclic():
    value = []
    value.append(value)
    return value


def bomb():
    value = [1]
    for _ in range(60):
        value = [value, value]
    return value


def nested(levels, kind):
    value = 1
    for _ in range(levels):
        value = kind((value,))
    return value


class OwnPath(pathlib.PurePosixPath):
    pass


class Tuple(tuple):
    __slots__ = ()


class Named:
    _fields = ("x",)
    x = 1


REFUSED = [
    OwnPath("/a"),
    type("Lookalike", (), {"__module__": "pathlib"})(),
    Tuple((1,)),
    Named(),
    *(nested(65, kind) for kind in (list, tuple, frozenset, lambda value: {"a": value[0]})),
    Text("x"),
    Sneaky(a=1),
    Loose(),
    object(),
    open,
    iter([]),
    {(1, 2): 3},
    {1: "a", "1": "b"},
    {"risk_score": 1, "risk_score (argument)": 2},
    beside(),
    cyclic(),
    bomb(),
    "\ud800",
    {"\ud800": 1},
    pathlib.Path("\udcff"),
    "x" * 70_000,
    [0] * 70_000,
    (thing for thing in ()),
    memoryview(b"x"),
]


@pytest.mark.parametrize("kind", [list, tuple])
def test_an_enum_is_one_level_more(kind):
    def tool(a):
        return a

    value, shown = Colour.RED, "red"
    for _ in range(63):
        value, shown = kind([value]), [shown]
    assert bind(tool, value).shown == {"a": shown}
    with pytest.raises(ValidationError, match="nested too deeply"):
        bind(tool, kind([value]))


def test_mappings_may_be_nested_as_deeply():
    def tool(a):
        return a

    value = 1
    for _ in range(64):
        value = {"a": value}
    assert bind(tool, value).shown == {"a": value}


def test_keys_may_be_texts_numbers_and_enums():
    def tool(a):
        return a

    assert bind(tool, {Colour.RED: 1, Number.ONE: 2, 7: 3, "x": 4}).shown == {"a": {"red": 1, "1": 2, "7": 3, "x": 4}}
    with pytest.raises(ValidationError, match="has a key of type bool"):
        bind(tool, {True: 1})


def lonely(self):
    return self


def test_an_argument_of_a_plain_function_is_shown_whatever_it_is_called():
    assert bind(lonely, [1]).shown == {"self": [1]}


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_what_is_nested_no_deeper_than_that_is_shown(kind):
    def tool(a):
        return a

    assert bind(tool, nested(64, kind)).shown == {"a": nested(64, list)}


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_cannot_be_shown_in_full_is_refused(value):
    def tool(a):
        return a

    with pytest.raises(ValidationError) as caught:
        bind(tool, value)
    assert "xxxx" not in str(caught.value)


def test_a_sentinel_of_the_author_passes_and_keeps_its_identity():
    missing = object()

    def tool(a=missing):
        return a

    call = bind(tool)
    assert call.shown == {"a": "<default object>"} and call.args == (missing,)
    with pytest.raises(ValidationError):
        bind(tool, object())


def test_further_types_can_be_represented():
    def tool(a):
        return a

    loose = Loose()
    call = Binder(tool, represent={Loose: lambda value: {"x": value.x}}).bind((loose,), {})
    assert call.shown == {"a": {"x": 1}} and call.args[0] is not loose
    for other in (loose, {"x": float("nan")}, "\ud800"):
        with pytest.raises(ValidationError, match="argument a: what represent returned is"):
            Binder(tool, represent={Loose: lambda value, other=other: other}).bind((loose,), {})


def test_secrets_are_replaced_at_every_depth_and_the_tool_still_gets_them():
    def tool(password, query, token=None, pin=True, **rest):
        return password, query, token, rest

    call = Binder(tool, redact_names=["nickname"]).bind(
        ("hunter2", {"a": [{"client_secret": "s1", "n": 1}], "Authorization": ["s2"], "nickName": "s3"}),
        {"key": pydantic.SecretStr("s4"), "api_key": object, "userPassword": {"x": "s5"}},
    )
    assert call.shown == {
        "password": "[redacted]",
        "query": {
            "a": [{"client_secret": "[redacted]", "n": 1}],
            "Authorization": "[redacted]",
            "nickName": "[redacted]",
        },
        "token": None,
        "pin": True,
        "rest": {"key": "[redacted]", "api_key": "[redacted]", "userPassword": "[redacted]"},
    }
    assert call.args[0] == "hunter2" and call.args[1]["a"][0]["client_secret"] == "s1"


def test_an_argument_called_like_a_risk_claim_is_seen():
    def tool(risk_level, data):
        return risk_level

    assert bind(tool, "low", {"risk_score": 1}).shown == {
        "risk_level (argument)": "low",
        "data": {"risk_score (argument)": 1},
    }


class Server:
    def method(self, a):
        return a

    @classmethod
    def other(cls, a):
        return a


def test_the_object_of_a_method_is_neither_copied_nor_shown():
    server = Server()
    call = Binder(Server.method).bind((server, [1]), {})
    assert call.args[0] is server and call.shown == {"a": [1]}
    assert Binder(server.method).bind(([1],), {}).shown == {"a": [1]}
    assert Binder(Server.other.__func__).bind((Server, 1), {}).shown == {"a": 1}

    def tool(self):
        return self

    with pytest.raises(ValidationError):  # a mere function's argument of that name is an argument
        bind(tool, server)


def test_what_the_server_injects_is_passed_as_it_is():
    def tool(a, ctx):
        return ctx

    Context = type("Context", (), {"__module__": "mcp.server.mcpserver.context"})
    context, other = Context(), Loose()
    call = bind(tool, 1, context)
    assert call.args[1] is context and call.shown == {"a": 1, "ctx": "<Context, given by the server>"}
    for module in ("shop.context", "mcp_tools.context", "fastmcpx", "builtins"):
        lookalike = type("Context", (), {"__module__": module})()
        with pytest.raises(ValidationError):
            bind(tool, 1, lookalike)
    for name in ("Session", "context", "MyContext"):
        with pytest.raises(ValidationError):
            bind(tool, 1, type(name, (), {"__module__": "mcp.server.mcpserver.context"})())
    call = Binder(tool, by_reference=["ctx"]).bind((1, other), {})
    assert call.args[1] is other and call.shown["ctx"] == "<Loose, given by the server>"
    with pytest.raises(ConfigurationError):
        Binder(tool, by_reference=["context"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_nothing_is_lost(value):
    def tool(a):
        return a

    def flat(item):
        """Every leaf, as text, in order."""
        if isinstance(item, dict):
            if set(item) == {"base64"}:
                return [str(item["base64"])]
            return [
                leaf for key, inner in item.items() for leaf in (str(key).removesuffix(" (argument)"), *flat(inner))
            ]
        if isinstance(item, list | tuple):
            return [leaf for inner in item for leaf in flat(inner)]
        if isinstance(item, bytes):
            import base64

            return [base64.b64encode(item).decode()]
        return [str(item)]

    try:
        call = bind(tool, value)
    except ValidationError:
        return
    shown = call.shown["a"]
    if "[redacted]" not in str(shown):
        assert flat(shown) == flat(value)
    assert repr(call.args[0]) == repr(value)


@pytest.mark.parametrize("value", [[1] * 7, [[], [[]]], {"a": 1, "b": [True]}, "text", 1, None, [], {}])
def test_the_limit_is_the_size_of_what_is_shown(value):
    def tool(x):
        pass

    size = len(json.dumps({"x": value}, separators=(",", ":")))
    assert Binder(tool, limit=size).bind((value,), {}).shown == {"x": value}
    with pytest.raises(ValidationError, match=f"longer than the {size - 1} bytes"):
        Binder(tool, limit=size - 1).bind((value,), {})


def test_a_number_is_shown_as_one_where_the_authority_can_keep_it():
    numbers = [2**63 - 1, 2**63, -(2**63), -(2**63) - 1]
    shown = Binder(lambda numbers: None).bind((numbers,), {}).shown
    assert shown == {"numbers": [2**63 - 1, str(2**63), -(2**63), str(-(2**63) - 1)]}
