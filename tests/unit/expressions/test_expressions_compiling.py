"""What can be said of an expression before there is an event."""

import time

import cel
import pytest

from kapsel_expressions import syntax
from kapsel_expressions.expression import FUNCTIONS, LONGEST, Expression, Invalid, Sort, compile_source


def refused(source: str, sort: Sort = "bool") -> Invalid:
    compiled = compile_source(source, sort)
    assert isinstance(compiled, Invalid), source
    return compiled


def taken(source: str, sort: Sort = "bool") -> Expression:
    compiled = compile_source(source, sort)
    assert isinstance(compiled, Expression), compiled
    return compiled


@pytest.mark.parametrize(
    ("source", "wrong", "allowed"),
    [
        ("evnt.body.action == 'a'", "there is no evnt (character 1)", "event, with id, type"),
        ("has(event.body) && event.bdy.x == 1", "there is no event.bdy (character 26)", "event.body"),
        ("event['bdy'].x == 1", "there is no event.bdy", "event.body"),
        ("event.body.items.exists(i, j == 1)", "there is no j (character 28)", "event"),
        ("lowercase(event.type) == 'a'", "there is no function lowercase (character 1)", "startsWith"),
        ("event.type.startsWith()", "startsWith has 1 arguments (character 12)", "2"),
        ("has(event)", "has() asks for no field", "has(event.body.action)"),
        ("event.type ==", "the expression ends too early (character 14)", "CEL"),
        ("event.type === 'a'", "'=' begins nothing that CEL knows (character 14)", "CEL"),
        ("event.type == 'a", "begins nothing that CEL knows (character 15)", "CEL"),
        ("event.type == 'a' )", "')' does not belong here (character 19)", "CEL"),
        ("event.body.items.exists(1, true)", "exists() takes the name of a variable", "CEL"),
        ("", "the expression ends too early", "CEL"),
        ("event.body.?x == 1", "'?' does not belong here", "CEL"),
        ("'a'", "gives a string", "true or false"),
        ("size(event.body)", "gives a number", "true or false"),
        ("event.body.items.map(i, i.n)", "gives a list", "true or false"),
        ("true " + " " * LONGEST, f"has {LONGEST + 5} characters", str(LONGEST)),
        ("(" * 40 + "true" + ")" * 40, "nested more than 32 deep", "CEL"),
        ("!" * 40 + "true", "nested more than 32 deep", "CEL"),
        ("event.body.l.exists(x, x.matches(event.body.p))", "is not written down (character 26)", "between quotes"),
        ("event.id.matches('a' + 'b')", "is not written down (character 10)", "between quotes"),
        ("event.id.matches(b'a')", "the pattern of matches cannot be read (character 10)", "RE2"),
        (r"event.id.matches(r'(?x)\w {900}')", "the pattern of matches cannot be read", "without the flag x"),
        ("event.id.matches('a{" + " " * 4000 + "')", "the pattern of matches cannot be read", "RE2"),
        ("event.id.matches('a{1 0}')", "the pattern of matches cannot be read", "RE2"),
        ("'\0' == 'a'", "holds a null character (character 2)", "without it"),
        ("// \0\ntrue", "holds a null character (character 4)", "without it"),
        ("1" + "+1" * 300 + " == 1", "nested more than 200 deep", "CEL"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_with_what_is_allowed(source: str, wrong: str, allowed: str) -> None:
    invalid = refused(source)
    assert wrong in invalid.wrong
    assert allowed in invalid.allowed


@pytest.mark.parametrize(
    "source",
    [
        "['a']" + ".map(x, x + x)" * 40 + " == ['a']",
        "[1].all(a, event.body.l.all(b, event.body.l.all(c, event.body.l.all(d, a == b && c == d))))",
        "+".join(["event.body.s"] * 190) + " == 'a'",
    ],
)
def test_work_that_grows_beyond_all_bounds_is_refused(source: str) -> None:
    assert "too much work" in refused(source).wrong


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w{900}",
        r"\w{ 900 }",
        r"\w{900,}",
        r"(?:\w{30}){30}",
        r"\w{30}{30}",
        r"((a|\w)b){60}",
        r"[^\w-]{60}",
        r"\p{L}{60}",
        r"(?:\pL{100}){2}",
        r"(?i)\pL{30}",
        r"(?P<n>[]a\w]){60}",
        r"\d{300}",
        r"[[:alpha:]&&[a-z]]{900}",
        "(?:(?:a{9}){9}){99}",
        "()a{999999}",
        "a" * 101,
    ],
)
def test_a_pattern_that_repeats_too_much_is_refused_before_the_engine_makes_it(pattern: str) -> None:
    assert "the pattern of matches is too much work" in refused(f"event.id.matches(r'{pattern}')").wrong


def test_an_escape_hides_no_repetition_and_many_patterns_add_up() -> None:
    assert "too much work" in refused(r"event.id.matches('\u005cw\x7b900}')").wrong
    assert "shorter patterns" in refused(" || ".join([r"event.id.matches(r'\w{30}')"] * 3)).allowed


@pytest.mark.parametrize(
    "pattern",
    [
        "@example[.]com$",
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"^[\w.+-]{1,20}@[\w-]+[.]\w{2,4}$",
        r"(?i)^ref(?:s)?/(?P<kind>heads|tags)/v\d{1,3}",
        "[[:alpha:]]{3}[]a^-]x{2,}(?i:y)",
    ],
)
def test_a_pattern_of_the_everyday_is_taken(pattern: str) -> None:
    taken(f"event.id.matches(r'{pattern}')")


def test_the_worst_pattern_that_is_taken_is_done_in_a_moment() -> None:
    event = {"event": {"id": "ab" * 2000}}
    for pattern in (r"[ab]*a\w{34}c", r"a(?:\pL{17}){2}c", "a.{650}c", "[ab]*a[ab]{330}c"):
        source = f"event.id.matches(r'{pattern}')"
        taken(source)
        program = cel.compile(source)
        took = []
        for _ in range(3):
            began = time.thread_time()
            program.execute(event)
            took.append(time.thread_time() - began)
        assert min(took) < 0.5, pattern  # seconds: some hundredths, and some times as much on a slow machine


@pytest.mark.parametrize("sort", ["string", "json"])
def test_what_can_never_have_the_wanted_type_is_refused(sort: Sort) -> None:
    assert "gives a bytes" in refused("bytes(event.type)", sort).wrong


def test_what_the_engine_alone_refuses_is_refused() -> None:
    assert "line 1, character" in refused(r"event.type == '\q'").wrong


def test_an_expression_gets_only_the_parts_of_the_event_that_it_names() -> None:
    source = "event.type == 'a' || event['body'].user.id == 1 || event.body.items[0].n == 2 || has(event.body.user)"
    assert taken(source).paths == (("body", "items"), ("body", "user"), ("type",))
    assert taken("event == event").paths == ((),)
    assert taken("[1].exists(event, event == 1)").paths == ()


EXAMPLES = {
    "has": "has(event.body)",
    "dyn": "dyn(1) == 1",
    "type": "type(1) == int",
    "size": "size('a') == 1",
    "contains": "'a'.contains('a')",
    "startsWith": "'a'.startsWith('a')",
    "endsWith": "'a'.endsWith('a')",
    "matches": "'a'.matches('a')",
    "string": "string(1) == '1'",
    "bytes": "bytes('a') == b'a'",
    "int": "int('1') == 1",
    "uint": "uint('1') == 1u",
    "double": "double('1') == 1.0",
    "timestamp": "timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')",
    "duration": "duration('1h') > duration('1m')",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_is_allowed_is_one_the_engine_has(name: str) -> None:
    source = EXAMPLES.get(name, f"timestamp('2026-01-01T00:00:00Z').{name}() >= 0")
    taken(source)
    assert cel.evaluate(source, {"event": {"body": {}}}) is True


@pytest.mark.parametrize(
    "source",
    [
        r"r'\' == '\\'",
        "'''it's''' == \"it's\"",
        '"""a"b""" == \'a"b\'',
        "b'\\x41' == bytes('A')",
        "br'a' == b'a'",
        "0x1F == 31 && 1e3 == 1000.0 && .5 == 0.5 && 1u == 1u",
        "-1 < 0 && !false && --1 == 1",
        "[1, 2,][1] == 2 && {'a': 1,}.a == 1 // a comment",
        "1 in [1] && !(2 in [1])",
        "true ? true : false ? false : true",
    ],
)
def test_both_parsers_read_the_same(source: str) -> None:
    taken(source)
    assert cel.evaluate(source) is True


def test_the_deepest_tree_that_is_taken_does_not_exhaust_the_stack() -> None:
    source = "1" + "+1" * (syntax.TALLEST - 3) + " > 1"
    taken(source)
    taken("(" * 30 + "true" + ")" * 30)
