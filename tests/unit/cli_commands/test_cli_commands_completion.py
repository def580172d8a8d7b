"""Completion scripts are made from the parser, so every command and option is in them."""

import os
import shutil
import subprocess

import pytest

from kapsel_cli.__main__ import main
from kapsel_cli.completion import bash, fish, walk, zsh
from kapsel_cli.kubectl.__main__ import main as plugin
from kapsel_cli.parser import COMMANDS, build


def test_every_command_is_walked_with_its_options() -> None:
    tree = {command.path: command for command in walk(build(), "kapsel")}
    assert list(tree["kapsel"].words) == list(COMMANDS)
    assert all(f"kapsel {word}" in tree for word in tree["kapsel"].words)
    options = {name: option.values for option in tree["kapsel get events"].options for name in option.names}
    assert options["--output"] == options["-o"] == ("table", "wide", "json", "yaml")
    assert options["--watch"] is None
    assert options["--since"] == ()


@pytest.mark.parametrize("word", COMMANDS)
def test_a_command_is_declared_by_the_one_module_that_is_imported_for_it(word: str) -> None:
    alone = {command.path: command for command in walk(build([word]), "kapsel")}
    whole = {command.path: command for command in walk(build(), "kapsel")}
    declared = [path for path in whole if f"{path} ".startswith(f"kapsel {word} ")]
    assert declared
    assert [alone[path] for path in declared] == [whole[path] for path in declared]


def test_a_word_that_is_no_command_is_told_all_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build(["gett"]).parse_args(["gett"])
    said = capsys.readouterr().err
    assert all(f"'{word}'" in said for word in COMMANDS)


@pytest.mark.parametrize(
    ("words", "wrong", "command"),
    [
        ("get events --state x", "unrecognized arguments: --state", "kapsel get events"),
        ("get log --since 1h", "unrecognized arguments: --since 1h", "kapsel get log"),
        ("get --foo events", "unrecognized arguments: --foo", "kapsel get"),
        ("--foo get events", "unrecognized arguments: --foo", "kapsel"),
        ("tail --foo", "unrecognized arguments: --foo", "kapsel tail"),
        ("up . --port 99999", "argument --port: 99999 is not a number from 0 to 65535", "kapsel up"),
        ("get", "the following arguments are required: KIND", "kapsel get"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_one_sentence_that_names_the_help_of_the_command_itself(
    words: str, wrong: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"kapsel: {wrong}; see {command} --help\n"


def test_the_plugin_names_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plugin(["get", "events", "--state", "x"])
    said = capsys.readouterr().err
    assert said == "kapsel: unrecognized arguments: --state; see kubectl kapsel get events --help\n"


@pytest.mark.parametrize(("shell", "script"), [("bash", bash), ("zsh", zsh), ("fish", fish)])
def test_the_script_is_one_that_the_shell_can_read(shell: str, script) -> None:
    text = script(list(walk(build(), "kapsel")))
    for word in ("deliveries", "completion", "--server" if shell != "fish" else "-l server"):
        assert word in text
    if shutil.which(shell) is None and not os.environ.get("CI"):
        pytest.skip(f"{shell} is not installed; apt-get install {shell} lets it read its completion script")
    subprocess.run([shell, "-n"], input=text, text=True, check=True)
