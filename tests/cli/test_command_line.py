"""``egnn-prune``: its commands, help, suggestions, exit codes, completion, and how loud it is."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tqdm import tqdm

import egnn_prune
from egnn_prune.cli import jobs
from egnn_prune.cli.completion import script as completion
from egnn_prune.cli.jobs import Job
from egnn_prune.cli.main import main
from egnn_prune.cli.registry import COMMANDS, SHELLS
from egnn_prune.cli.script import run_script
from egnn_prune.cli.streams import NORMAL, QUIET, TRACES, VERBOSE, PlainLines, streams, verbosity
from egnn_prune.cli.suggest import did_you_mean
from egnn_prune.configs.settings import Settings
from egnn_prune.errors import InputError

ROOT = Path(__file__).parents[2]
STUDIES = (
    "criteria sanity calibration selection acquisition centroid forces specialisation "
    "what-to-label error-bars questions"
)


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(*words)``: exit code, stdout and stderr of ``egnn-prune``, in this process."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["egnn-prune", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


# -------------------------------------------------------------------------------- commands


def test_help_lists_every_command_in_one_line(call):
    for words in (["--help"], [], ["study"], ["study", "--help"]):
        code, out, err = call(*words)
        assert code == 0 and not err
        for name, entry in COMMANDS.items():
            (line,) = [line for line in out.splitlines() if line.startswith(f"  {name} ")]
            assert line.endswith(entry.summary) and len(line) < 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, call):
    code, out, err = call(*name.split(), "--help")
    assert code == 0 and not err
    assert f"sage: egnn-prune {name} " in out and "-q shows errors" in out


def test_version(call):
    assert call("--version") == (0, f"egnn-prune {egnn_prune.__version__}\n", "")


def test_help_does_not_wait_for_torch():
    """In a process of its own: here torch is loaded already."""
    code = (
        "import sys\n"
        "from egnn_prune.cli.main import main\n"
        "from egnn_prune.cli.registry import COMMANDS\n"
        "for entry in COMMANDS.values(): entry.load().words()\n"
        "sys.argv = ['egnn-prune', 'train', '--help']\n"
        "try: main()\n"
        "finally: assert not {'torch', 'lightning', 'ase', 'matplotlib'} & sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "model.hidden=64" in done.stdout and not done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_calls_is_there(name):
    import importlib

    command = COMMANDS[name].load()
    if isinstance(command, Job):
        module, _, function = command.work.partition(":")
        assert callable(getattr(importlib.import_module(f"egnn_prune.{module}"), function))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "there is no command 'trian'; --help lists all (did you mean train?)"),
        (["nonsense"], "there is no command 'nonsense'; --help lists all"),
        (["study", "sanit"], "no command 'study sanit'; --help lists all (did you mean study sani"),
        (["train", "model.hiden=3"], "'model.hiden'; --help lists all settings (did you mean mod"),
        (["train", "modle.hidden=3"], "no setting 'modle.hidden'; --help lists all settings (did "),
        (["train", "seed=abc"], "error: seed must be a whole number, not 'abc'"),
        (["train", "training.lr=fast"], "error: training.lr must be a number, not 'fast'"),
        (["train", "model.attention=maybe"], "model.attention must be true or false, not 'maybe'"),
        (["train", "hidden=3"], "(did you mean model.hidden?)"),
        (["predict", "m", "s", "--out", "o", "--treshold", 1], "(did you mean --threshold?)"),
        (["predict", "m", "--out", "o"], "arguments are required: STRUCTURES"),
        (["md", "m", "s", "--out", "o", "--steps", "few"], "invalid int value: 'few'"),
        (["export", "m", "model.pt"], "FILE must end in .pt2 or .onnx, not model.pt"),
        (["report", "nowhere"], "nowhere holds no metrics.json, study.json or audit.json; give "),
        (["--completion", "tcsh"], "--completion is followed by one of bash, zsh, fish"),
        (["train", "--config"], "--config is given once, with a file"),
    ],
)
def test_a_users_error_is_one_sentence_and_exit_code_2(words, said, call):
    code, out, err = call(*words)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_suggestions():
    assert did_you_mean("treshold", ["threshold", "steps"]) == " (did you mean threshold?)"
    assert did_you_mean("zzz", ["threshold", "steps"]) == ""


# ------------------------------------------------------------------- exit codes, loudness


def test_an_interruption_has_exit_code_130(call, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Job, "_run", interrupted)
    code, _, err = call("train")
    assert code == 130 and err.startswith("Interrupted; the same command continues")
    with pytest.raises(SystemExit) as caught:
        run_script(interrupted)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "Interrupted; nothing half-written is left.\n"


def test_stack_traces_on_demand_and_of_our_own_mistakes(call, monkeypatch):
    def wrong(*_: object) -> None:
        raise InputError("a sentence")

    monkeypatch.setattr(Job, "_run", wrong)
    for flags in ((), ("-v",), ("-q",)):
        assert call("train", *flags) == (2, "", "error: a sentence\n")
    code, _, err = call("-v", "train", "-v")
    assert code == 2 and "Traceback" in err and err.endswith("error: a sentence\n")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Job, "_run", broken)
    with pytest.raises(ZeroDivisionError):
        call("train")


def test_flags_of_loudness():
    assert verbosity(["a", "-q", "b=1"]) == (QUIET, ["a", "b=1"])
    assert verbosity(["-v"]) == (VERBOSE, []) and verbosity([]) == (NORMAL, [])
    assert verbosity(["-v", "x", "-v"]) == verbosity(["-vv", "x"]) == (TRACES, ["x"])


def chatty(*_: object) -> None:
    print("[1/2] Training\n")
    for _ in tqdm(range(30), "training"):
        pass
    warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
    logging.getLogger("egnn_prune.data").warning("a warning")
    print("Report: here", end="\n\n")


@pytest.fixture
def loud(call, monkeypatch):
    monkeypatch.setattr(Job, "_run", chatty)
    return lambda *flags: call("train", *flags)


def test_a_log_has_lines_instead_of_carriage_returns(loud):
    code, out, err = loud()
    assert code == 0 and out == "[1/2] Training\n\nReport: here\n\n"
    assert "\r" not in err and "training: 100% 30/30 [" in err and "deprecated" not in err
    assert all(line.strip() for line in err.splitlines()) and "TQDM_DISABLE" not in os.environ


def test_quiet_shows_the_final_line(loud):
    assert loud("-q") == (0, "Report: here\n", "")
    assert sys.stdout is not sys.__stdout__ or not logging.root.manager.disable


def test_verbose_shows_warnings_of_libraries(loud):
    with pytest.warns(FutureWarning, match="deprecated"):
        loud("-v")


def test_a_warning_is_a_line_without_the_code_that_it_comes_from():
    usual = warnings.formatwarning
    with streams(NORMAL):
        line = warnings.formatwarning("the network is not sure", UserWarning, "code.py", 1)
    assert line == "warning: the network is not sure\n"
    assert warnings.formatwarning is usual


def test_quiet_holds_for_other_processes_too():
    code = (
        "import os, subprocess, sys; from egnn_prune.cli.streams import QUIET, streams\n"
        "with streams(QUIET):\n"
        "    print('first'); subprocess.run(['echo', 'a worker']); print('last')\n"
        "    assert os.environ['TQDM_DISABLE'] == '1'\n"
        "print('afterwards')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout == "last\nafterwards\n" and not done.stderr


class Written:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_bars_become_a_line_at_every_tenth():
    written = Written()
    stream = PlainLines(written, seconds=0)  # type: ignore[arg-type]
    with tqdm(total=40, desc="outer", file=stream, mininterval=0, ncols=80) as outer:
        for _ in range(4):
            for _ in tqdm(range(5), "inner", leave=False, file=stream, mininterval=0):
                outer.update(2)
    print("a message", file=stream)
    lines = written.text.splitlines()
    assert "\r" not in written.text and "\x1b" not in written.text and "|" not in written.text
    assert [line[:12] for line in lines if line.startswith("outer")] == [
        f"outer: {10 * tenth:3}% " for tenth in range(1, 11)
    ]
    assert lines[-1] == "a message" and "" not in lines


def test_bars_wait_for_each_other_but_the_end_is_told():
    written = Written()
    stream = PlainLines(written, seconds=100)  # type: ignore[arg-type]
    for _ in tqdm(range(40), "fit", file=stream, mininterval=0):
        pass
    for _ in tqdm(iter(range(40)), "without end", file=stream, mininterval=0):
        pass
    assert written.text.startswith("fit: 100% 40/40 [") and written.text.count("\n") == 1


def test_a_terminal_keeps_its_bars(monkeypatch):
    class Terminal(Written):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with streams(NORMAL):
        for _ in tqdm(range(3), "fit"):
            pass
    assert "\rfit: 100%|" in terminal.text


# ------------------------------------------------------------------------------ completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_names_everything(shell, call, tmp_path):
    code, out, err = call("--completion", shell)
    assert code == 0 and not err
    for word in ("train", "acquisition", "model.hidden=", "data=rmd17", "--threshold"):
        assert word in out
    if shutil.which(shell):
        (tmp_path / "script").write_text(out)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tr", {"train"}),
        ("study ", set(STUDIES.split())),
        ("study sanity see", {"seed=", "seeds="}),
        ("train model.hi", {"model.hidden="}),
        ("train data=r", {"rmd17"}),  # bash takes what is behind the = for the word
        ("train seed=1 data=rm", {"rmd17"}),
        ("predict --th", {"--threshold"}),
        ("predict structures.x", set()),  # files, by bash itself
    ],
)
def test_completion_in_bash(line, found, tmp_path):
    code = f"""{completion("bash")}
    compopt() {{ :; }}
    COMP_LINE={f"egnn-prune {line}"!r}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE)
    [[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _egnn_prune; echo "${{COMPREPLY[*]}}" """
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found and not done.stderr


# --------------------------------------------------------------------- what scripts hand over


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.stem)
def test_no_script_needs_the_tests(path):
    assert '"tests"' not in path.read_text() and "from tests" not in path.read_text()


def test_scripts_are_the_commands(load_script):
    assert load_script("train_pruned_egnn").main is jobs.TRAIN
    assert load_script("compare_baseline").main is jobs.COMPARE
    assert load_script("predict").main is COMMANDS["predict"].load()
    assert jobs.TRAIN.schema is Settings


@pytest.mark.parametrize("words", [["study=quick"], ["seeds=[3]", "study=quick", "out=x"]])
def test_compare_hands_the_study_over(monkeypatch, words):
    seen = []
    monkeypatch.setattr(jobs.Job, "__call__", lambda job: seen.append((job, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    jobs.COMPARE()
    job, given = seen[0]
    assert job is jobs.QUESTIONS
    assert given == [word.replace("study=", "form=") for word in words]
