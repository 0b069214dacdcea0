"""Every command is there, documented, loaded only when it is used, and clear about a wrong option."""

import subprocess
import sys

import pytest

from isp_perf.cli import main
from isp_perf.cli._commands import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    """--help of each command leaves with 0 and names every option with its meaning."""
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert f"isp-perf {name}" in shown
    assert COMMANDS[name].says.split()[0] in shown.lower()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_one_clear_line(name, capsys):
    """An option that does not exist is exit code 2, names the option, and points at the help."""
    words = {"config": ["show"], "stats": ["http://localhost"], "top": ["http://localhost"]}.get(name, [])
    with pytest.raises(SystemExit) as left:
        main([name, *words, "--jsn"])
    assert left.value.code == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert f"isp-perf {name} --help" in errors


def test_what_was_meant_is_said(capsys):
    """A slip of the fingers in a command or an option is answered with the one that exists."""
    for words, wanted in ((["rulse"], "rules"), (["rules", "--jsno"], "--json"), (["demo", "--conections=3"], "--con")):
        with pytest.raises(SystemExit):
            main(words)
        assert f"did you mean {wanted}" in capsys.readouterr().err


def test_the_help_lists_the_commands_and_loads_none():
    """`isp-perf --help` names every command and every exit code without importing one of them."""
    code = "import sys; from isp_perf.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.modules if m.startswith('isp_perf.') and m.split('.')[1] not in ('cli', 'errors')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name}" in done.stdout for name in COMMANDS)
    assert "exit codes: 0" in done.stdout


def test_a_reader_that_leaves_is_no_traceback():
    """`isp-perf ... | head -1` ends quietly when the reader closes the pipe."""
    code = "import sys; from isp_perf.cli import main; sys.exit(main(['config', 'show', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(30) in {0, 1}
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("value", ["soon", "0", "1e9", "nan", "-1"])
def test_durations_have_bounds(value, capsys):
    """A duration that is no number or out of its range is refused with the range."""
    with pytest.raises(SystemExit) as left:
        main(["bench", "http://127.0.0.1:1", "--seconds", value])
    assert left.value.code == 2
    assert "seconds from 0.1 to 3600" in capsys.readouterr().err
