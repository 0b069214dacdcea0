"""`isp-perf dictionary`: what it reads, what it writes, what it says, and how it refuses."""

import json
import random

import pytest

from isp_perf.cli import main
from isp_perf.compression import Dictionary, train_dictionary
from isp_perf.compression import _dictionary as module
from isp_perf.compression._codecs import library

pytestmark = pytest.mark.skipif(library("compression.zstd", "backports.zstd") is None, reason="zstd is not installed")


def answers(number=120):
    """Answers of one service: alike in form, different in content."""
    chance = random.Random(1)
    for i in range(number):
        words = " ".join(chance.choice(["sem", "sinal", "lento", "caiu", "modem", "fatura"]) for _ in range(9))
        text = {"id": chance.getrandbits(40), "cliente": f"Cliente {i}", "canal": "whatsapp", "texto": words}
        yield json.dumps({"total": 1, "pagina": 1, "itens": [text]}).encode()


@pytest.fixture
def folder(tmp_path):
    """A folder with answers in files of their own, in lines, and below it."""
    place = tmp_path / "samples"
    (place / "deeper").mkdir(parents=True)
    everything = list(answers())
    for i, answer in enumerate(everything[:40]):
        (place / f"{i:03}.json").write_bytes(answer)
    (place / "lines.ndjson").write_bytes(b"\n".join(everything[40:80]) + b"\n\n")
    (place / "deeper" / "lines.jsonl").write_bytes(b"\r\n".join(everything[80:]))
    (place / "notes.txt").write_text("no sample")
    return place


def test_a_folder_becomes_a_dictionary_with_its_gain(folder, tmp_path, capsys):
    """The file is a usable dictionary, and the figures are of the fifth of the samples that it never saw."""
    path = tmp_path / "api.dict"
    assert main(["dictionary", str(folder), "-o", str(path)]) == 0
    content = path.read_bytes()
    assert 256 <= len(content) <= 16384
    assert Dictionary(content, match="/api/*").digest
    printed = capsys.readouterr().out
    assert f"{path}: {len(content)} bytes, trained from 96 answers" in printed
    assert "measured on 24 others" in printed
    assert "with the dictionary (dcz)" in printed
    assert list(tmp_path.glob("*.tmp")) == []


def test_json_gives_the_sizes_that_were_measured(folder, tmp_path, capsys):
    """--json prints one object, whose dictionary saves more than brotli does on answers it never saw."""
    path = tmp_path / "api.dict"
    assert main(["dictionary", str(folder / "lines.ndjson"), str(folder), "-o", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["bytes"], found["trained_from"]) == (str(path), path.stat().st_size, 128)
    sizes = found["held_back"]["bytes"]
    assert found["held_back"]["bodies"] == 32
    assert sizes["dcz"] < sizes["brotli"] < sizes["plain"]
    assert found["held_back"]["saved_ratio"] == pytest.approx(1 - sizes["dcz"] / sizes["plain"], abs=1e-4)


def test_the_size_is_kept(folder, tmp_path):
    """--size bounds the dictionary."""
    path = tmp_path / "small.dict"
    assert main(["dictionary", str(folder), "-o", str(path), "--size", "1024"]) == 0
    assert path.stat().st_size <= 1024


def test_the_same_samples_give_the_same_dictionary(folder, tmp_path):
    """Training is deterministic, so that every worker and every build has the same hash."""
    for name in ("one", "two"):
        assert main(["dictionary", str(folder), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("number", [0, 9])
def test_too_few_samples_are_refused(tmp_path, capsys, number):
    """Below ten answers nothing is trained and nothing is written."""
    (tmp_path / "few.ndjson").write_bytes(b"\n".join(answers(number)))
    assert main(["dictionary", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert f"{number} found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_samples_with_nothing_in_common_are_refused(tmp_path, capsys):
    """What the codec cannot learn from is an error, not an empty file."""
    (tmp_path / "few.ndjson").write_bytes(b"\n".join(b"%d" % i for i in range(12)))
    assert main(["dictionary", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "too little in common" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_read_or_written_are_one_line(folder, tmp_path, capsys):
    """A missing sample and a missing output folder leave with 1, one line, and nothing half written."""
    assert main(["dictionary", str(tmp_path / "absent.json"), "-o", str(tmp_path / "out")]) == 1
    assert main(["dictionary", str(folder), "-o", str(tmp_path / "absent" / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [[], ["a"], ["a", "-o", "b", "--size", "12"], ["a", "-o", "b", "--size", "many"]])
def test_a_wrong_command_line_is_refused(argv, capsys):
    """Samples and an output are needed, and the size is a number of bytes from 256."""
    with pytest.raises(SystemExit) as left:
        main(["dictionary", *argv])
    assert left.value.code == 2
    assert "isp-perf dictionary --help" in capsys.readouterr().err


def test_without_zstd_the_command_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    """No zstd library: exit code 2 and the extra's name."""
    monkeypatch.setattr(module, "dictionary_codec", lambda: None)
    assert main(["dictionary", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "isp-perf[zstd]" in capsys.readouterr().err


def test_measuring_needs_bodies():
    """Nothing to code is a configuration error."""
    with pytest.raises(ValueError, match="bodies"):
        module.measure_dictionary(train_dictionary(list(answers())), [b""])
