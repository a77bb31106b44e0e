"""The checks for a GPU: a failure is written down and the others go on; nothing found is lost."""

from __future__ import annotations

import json
import time

import pytest
import torch

from egnn_prune import device_checks
from egnn_prune.cli.hydra_app import command
from egnn_prune.cli.script import run_script
from egnn_prune.configs.settings import Settings
from egnn_prune.device_checks import CHECKS, Check, CheckContext, DeviceLost, table, work_through
from egnn_prune.device_checks.checking import Skipped, answers
from egnn_prune.errors import InputError, out_of_memory_sentence
from egnn_prune.system.time_limit import time_limit


@pytest.fixture
def context(tmp_path) -> CheckContext:
    return CheckContext(torch.device("cpu"), True, tmp_path)


def fine(context, found):
    found["deviation"] = 1.5e-7


def wrong(context, found):
    found["seen"] = 3
    raise AssertionError("values |differ|\nby a lot")


def leaves(context, found):
    raise SystemExit(2)


def endless(context, found):
    while True:
        time.sleep(0.01)


def elsewhere(context, found):
    raise Skipped("needs a GPU")


def test_each_check_stands_alone(context, tmp_path):
    checks = [Check(f.__name__, f, 1) for f in (wrong, leaves, elsewhere, fine)]
    found = work_through(checks, context, tmp_path / "report.json", minutes=1)
    assert [o.result for o in found] == ["FAILED", "FAILED", "skipped", "ok"]
    assert found[0].sentence == "AssertionError: values |differ| by a lot"
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["device"] == "cpu" and content["torch"] == torch.__version__
    assert [c["found"] for c in content["checks"]] == [{"seen": 3}, {}, {}, {"deviation": 1.5e-7}]
    rows = table(found).splitlines()
    assert rows[2].startswith("| wrong | FAILED |") and rows[2].count("|") == 5
    assert "seen 3" in rows[2] and "deviation 1.5e-07" in rows[-1] and "needs a GPU" in rows[4]


def test_a_check_that_never_ends_is_stopped(context, tmp_path):
    checks = [Check("endless", endless, 1), Check("fine", fine, 1)]
    found = work_through(checks, context, tmp_path / "report.json", minutes=0.05)
    assert [o.result for o in found] == ["out of time", "ok"]
    assert found[0].sentence.startswith("stopped after") and found[0].seconds < 10


def test_without_time_nothing_is_begun(context, tmp_path):
    (found,) = work_through([Check("endless", endless, 1)], context, tmp_path / "r.json", minutes=0)
    assert found.result == "out of time" and found.seconds == 0


def test_the_alarm_is_put_back():
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with time_limit(100):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_after_a_lost_device_a_new_process_goes_on(context, tmp_path, monkeypatch):
    checks = [Check(f.__name__, f, 1) for f in (fine, wrong, fine)]
    monkeypatch.setattr(device_checks.checking, "answers", lambda device: False)
    report = tmp_path / "report.json"
    with pytest.raises(DeviceLost):
        work_through(checks, context, report, minutes=1)
    assert [c["result"] for c in json.loads(report.read_text())["checks"]] == ["ok", "FAILED"]
    found = work_through(checks, context, report, minutes=1, resume=True)
    assert [o.result for o in found] == ["ok", "FAILED", "ok"]


def test_whether_a_device_answers():
    assert answers(torch.device("cpu"))
    if not torch.cuda.is_available():
        assert not answers(torch.device("cuda"))


def test_the_checks_fit_into_eight_minutes():
    assert sum(check.seconds for check in CHECKS) <= 8 * 60
    assert len({check.name for check in CHECKS}) == len(CHECKS)


# ---------------------------------------------------------------------------------- the script


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_cuda_the_script_says_so(call_script, tmp_path):
    code, out, err = call_script("check_cuda", "--out", tmp_path / "out")
    assert code == 2 and not out
    assert err == (
        "error: device=cuda was asked for, but this machine has 0 CUDA devices that torch can use; "
        "use device=auto\n"
    )
    assert not (tmp_path / "out").exists()


def test_one_check_of_the_script(call_script, tmp_path):
    options = ("--device", "cpu", "--quick", "--out", tmp_path)
    code, out, _ = call_script("check_cuda", *options, "--only", "textbook")
    assert code == 2 and "check" not in out
    code, out, _ = call_script("check_cuda", *options, "--only", "training step")
    assert code == 0 and "| training step and latency | ok |" in out
    content = json.loads((tmp_path / "check_cuda.json").read_text())
    (check,) = content["checks"]
    assert content["quick"] and check["found"]["deviation"] < 1e-5
    assert "step textbook/ours" in (tmp_path / "check_cuda.md").read_text()


@pytest.mark.slow
def test_all_checks_on_the_cpu(call_script, tmp_path):
    options = ("--device", "cpu", "--quick", "--minutes", 30, "--out", tmp_path)
    code, out, err = call_script("check_cuda", *options)
    assert code == 0, out + err
    results = {
        c["name"]: c for c in json.loads((tmp_path / "check_cuda.json").read_text())["checks"]
    }
    assert set(results) == {check.name for check in CHECKS}
    for name in ("out of memory", "edge kernels", "speed of the edge kernels"):
        assert results.pop(name)["result"] == "skipped"
    assert {c["result"] for c in results.values()} == {"ok"}
    assert "masked - compact" in results["fine-tuning on selected graphs"]["found"]


# ---------------------------------------------------------------------------------- full memory


def full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")


def test_a_full_memory_is_one_sentence(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train_pruned_egnn.py"])
    with pytest.raises(SystemExit) as caught:
        run_script(full)
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        command(lambda _: full(), Settings, "train", "Purpose.")
    assert caught.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: the GPU's memory is full; make batches smaller")
    assert second.endswith(
        "the same command continues from what is saved (egnn-prune status shows it)"
    )


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("something else")

    assert out_of_memory_sentence(RuntimeError("out of memory")) is None
    assert out_of_memory_sentence(InputError("x")) is None
    with pytest.raises(RuntimeError, match="something else"):
        run_script(broken)
    monkeypatch.setattr("sys.argv", ["train_pruned_egnn.py"])
    with pytest.raises(RuntimeError, match="something else"):
        command(broken, Settings, "train", "Purpose.")
