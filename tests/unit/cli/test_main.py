"""The command line: exit codes, clear errors, and a bar only where somebody sees it."""

import io
import os
import signal
import socket
import subprocess
import sys

import pytest

from isp_perf import __version__
from isp_perf.cli import _demo, _main, _service, _terminal, main
from isp_perf.errors import ConfigurationError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["demo", "--no-such-option"],
        ["demo", "--requests", "0"],
        ["demo", "--requests", "many"],
        ["demo", "--port", "65536"],
        ["demo", "--connections", "-1"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(argv, capsys):
    """Unknown commands and options and impossible numbers are refused before anything is started."""
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "isp-perf" in capsys.readouterr().err


def test_the_version_is_the_package_s(capsys):
    """--version prints the version and leaves with 0."""
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == f"isp-perf {__version__}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("--port", 80, "must be free", "choose another one"), 2),
        (OSError("the disk is full"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_end_has_an_exit_code_and_one_line(monkeypatch, capsys, error, code):
    """Errors are one line on stderr without a traceback."""

    def fail(_):
        raise error

    monkeypatch.setattr(_demo, "run", fail)
    assert main(["demo"]) == code
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert str(error) in captured.err


def test_sigterm_leaves_in_order(monkeypatch):
    """SIGTERM unwinds what is open and leaves with 143, and the former handler is back afterwards."""
    closed = []

    def wait(_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            closed.append(True)

    monkeypatch.setattr(_demo, "run", wait)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        main(["demo"])
    assert (left.value.code, closed) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_in_use_names_the_option(capsys):
    """--serve on a taken port is refused at once, with the option to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["demo", "--serve", "--port", str(taken.getsockname()[1])]) == 2
    captured = capsys.readouterr()
    assert "--port" in captured.err
    assert "choose another" in captured.err
    assert captured.out == ""


def test_an_absent_extra_names_the_command_to_install_it(monkeypatch, capsys):
    """Without the demo extra, the error says what to install."""
    monkeypatch.setattr(_service, "_NEEDED", ("uvicorn", "no_such_package_here"))
    assert main(["demo"]) == 2
    error = capsys.readouterr().err
    assert "no_such_package_here" in error
    assert "isp-perf[demo]" in error


def test_settings_of_the_shell_never_reach_the_service(monkeypatch):
    """The service sees what the demo decided, not what the user's shell happens to hold."""
    monkeypatch.setenv("REDIS_URL", "redis://production")
    monkeypatch.setenv("ISP_PERF_NAMESPACE", "production")
    found = _service.environment({"ISP_PERF_OFF": "1"})
    assert "REDIS_URL" not in found
    assert {key for key in found if key.startswith("ISP_PERF_")} == {"ISP_PERF_OFF"}
    assert found["PATH"] == os.environ["PATH"]


def test_a_script_that_fails_is_an_error():
    """A step that ends with another code than 0 stops the demo."""
    with pytest.raises(OSError, match="exit code 3"):
        _service.run_python(["-c", "raise SystemExit(3)"], {})
    assert _service.run_python(["-c", "print(6 * 7)"], {}).strip() == "42"


def test_a_clone_without_example_is_an_error(monkeypatch, tmp_path):
    """Where the example is neither in the package nor beside it, the error says where it was looked for."""
    monkeypatch.setattr(_service.isp_perf, "__file__", str(tmp_path / "isp_perf" / "__init__.py"))
    with pytest.raises(OSError, match="example service"):
        _service.example_folder()


def test_an_installed_wheel_brings_the_example(monkeypatch, tmp_path):
    """Inside a wheel the example lies in the package, and is found there first."""
    inside = tmp_path / "isp_perf" / "_examples" / "support"
    inside.mkdir(parents=True)
    (inside / "main.py").write_text("")
    monkeypatch.setattr(_service.isp_perf, "__file__", str(tmp_path / "isp_perf" / "__init__.py"))
    assert _service.example_folder() == inside


def test_the_bar_is_drawn_on_a_terminal_only(monkeypatch):
    """A pipe gets no bar; a terminal gets one that is wiped at the end."""
    for stream, drawn in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with _terminal.Progress("work", 4) as progress:
            for _ in range(4):
                progress.step()
        assert ("100 %" in stream.getvalue()) is drawn
        assert stream.getvalue().endswith("\x1b[K") is drawn


@pytest.mark.parametrize(("value", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(monkeypatch, value, coloured):
    """NO_COLOR takes the colour out of the bar, as does everything that is no terminal."""
    monkeypatch.setenv("NO_COLOR", value)
    assert ("\x1b[32m" in _terminal.colour("#", 32, Terminal())) is coloured
    assert _terminal.colour("#", 32, io.StringIO()) == "#"


def test_the_command_starts_without_third_parties():
    """`isp-perf --help` loads no third party, so it answers at once."""
    code = "import sys; from isp_perf.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('redis', 'sqlalchemy', 'uvicorn', 'msgspec', 'asyncpg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert _main.main is main
