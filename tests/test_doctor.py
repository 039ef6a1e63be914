"""`python -m experiments doctor`: each kind of damage is named, with what to do about it."""

import json
import os
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from experiments import bookmark, cli, doctor, registry, runs
from mas_jax import Anchor, AnchorStore, leftovers
from tests import tiny

# When an array cannot be read, Orbax closes its event loop while TensorStore is still reading
# others, whose threads then complain to nobody in particular.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NOBODY = 2**22 + 1
"""A process number beyond the largest that Linux gives."""


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed each of two methods: "mas" stopped after two of three tasks, "finetune" finished."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny.Tiny(seeds=1, epochs=1)
    stopped: list[int] = []

    def stop(_: object) -> None:
        stopped.append(1)
        if len(stopped) == 3:
            raise KeyboardInterrupt

    for method, report in (("finetune", lambda _: None), ("mas", stop)):
        try:
            runs.run("tiny", config, method, tiny.tasks(), out, report, "python -m …")
        except KeyboardInterrupt:
            assert method == "mas"
    return out


@pytest.fixture
def run(two_runs: Path, tmp_path: Path) -> Path:
    """A copy to be harmed."""
    return shutil.copytree(two_runs, tmp_path / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of two tasks."""
    made = AnchorStore(tmp_path / "store")
    params = {"w": jnp.arange(3000.0), "b": jnp.ones(3)}
    for task in ("birds", "scenes"):
        made.save(task, Anchor(params, params), objective="l2_norm", num_samples=8)
    return tmp_path / "store"


def flip(path: Path) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path, before: str, after: str) -> None:
    """Change a text file."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def renumber(path: Path) -> None:
    """Change the accuracy before any task in a result from before there was a digest in it."""
    content = json.loads(path.read_text())
    del content["sha256"]
    content["seeds"][0]["untrained"][0] += 0.125
    path.write_text(json.dumps(content))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")
    }


def asked(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit status, what it says), and that nothing was changed."""
    before = snapshot(directory)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", str(directory)])
    assert snapshot(directory) == before
    return int(end.value.code or 0), capsys.readouterr().out


def test_a_sound_run_and_a_sound_store_are_well(run, store, capsys):
    status, text = asked(run, capsys)
    assert status == 0
    assert "all is well" in text
    assert "a run of mas in tiny; seeds that learned all 3 tasks: 0 of 1 begun" in text
    assert "a run of finetune in tiny; seeds that learned all 3 tasks: 1 of 1 begun" in text
    assert f"{run / 'mas' / 'seed_0'}: tasks learned: 2 of 3" in text
    assert "a store of anchors, whole ones 2: '4/1', '2/3'" in text
    status, text = asked(store, capsys)
    assert (status, text.count("\n")) == (0, 3)


def biggest(directory: Path) -> Path:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda store: flip(biggest(store / "0")), "of task 'birds' in .*0 is not what was saved"),
        (lambda store: flip(store / "0/metadata/metadata"), "metadata in .*store/0"),
        (lambda store: shutil.rmtree(store / "0/anchor"), "cannot read .*store/0"),
        (
            lambda store: shutil.rmtree(store / "0/metadata"),
            "cannot read the metadata in .*store/0",
        ),
        (lambda store: (store / "0").rename(store / "5"), "5 holds task 'birds', which was saved"),
    ],
)
def test_a_damaged_entry_is_named_beside_the_whole_ones(store, capsys, harm, message):
    harm(store)
    status, text = asked(store, capsys)
    assert status == 1
    damaged = next(line for line in text.splitlines() if line.startswith("damaged"))
    assert re.search(message, damaged)
    assert re.search("put a copy of|Put a copy of", damaged)
    assert "whole ones 1: 'scenes'" in text


def test_leftovers_and_locks_are_noted_and_are_no_damage(store, run, capsys):
    (store / "7.orbax-checkpoint-tmp").mkdir()
    (store / ".deleted").mkdir()
    signature = {"host": os.uname().nodename, "pid": NOBODY, "time": 0}
    (store / ".lock").write_text(json.dumps(signature))
    status, text = asked(store, capsys)
    assert status == 0
    assert text.count("the next save or delete removes it") == 2
    assert f"process {NOBODY} on {os.uname().nodename}" in text
    assert "which does not run any more" in text

    (store / ".lock").write_text(json.dumps({**signature, "pid": os.getpid()}))
    assert "what to do: let it finish" in asked(store, capsys)[1]

    (run / "mas" / f"result.json.{NOBODY}.tmp").write_text("{")
    (run / "mas" / "seed_0" / f"state.msgpack.{os.getpid()}.tmp").write_text("")
    status, text = asked(run, capsys)
    assert status == 0
    assert "a process that was killed left it half written" in text
    assert f"process {os.getpid()} is writing it" in text


@pytest.mark.parametrize(
    ("harm", "messages"),
    [
        (lambda mas: flip(mas / "seed_0/state.msgpack"), ["state.msgpack is damaged", "remove"]),
        (lambda mas: (mas / "seed_0/state.msgpack").write_bytes(b""), ["state.msgpack", "remove"]),
        (
            lambda mas: shutil.rmtree(mas / "seed_0/anchors"),
            ["what the method keeps after its task number 2 is gone", "to learn that seed again"],
        ),
        (
            lambda mas: AnchorStore(mas / "seed_0/anchors").delete("4/1"),
            ["anchors has no anchor of '4/1', which the run needs no more", "put a copy back, or"],
        ),
        (
            lambda mas: AnchorStore(mas / "seed_0/anchors").delete("2/3"),
            ["no anchor of '2/3', which the run needs to go on", "to learn that seed again"],
        ),
        (
            lambda mas: (mas / "seed_0/within.msgpack").write_bytes(bytes(40)),
            ["within.msgpack: it is not what was written", "goes on after the last finished task"],
        ),
        (
            lambda mas: (mas / "seed_0" / bookmark.FILE).write_bytes(bytes(40)),
            ["it is not what was written", "from its start; nothing else is lost"],
        ),
        (
            lambda mas: (mas / "seed_0/state.msgpack").unlink(),
            ["state.msgpack: it is gone, and result.json has tasks", "put it back, or remove"],
        ),
        (
            lambda mas: renumber(mas / "result.json"),
            ["the numbers of seed 0 are not those of its state", "remove result.json and give"],
        ),
        (
            lambda mas: edit(mas / "settings.json", '"epochs": 1', '"epochs": 7'),
            ["settings.json: it is not what result.json was made with", "put a copy back"],
        ),
        (lambda mas: (mas / "settings.json").unlink(), ["it is gone", 'the entry "config"']),
        (lambda mas: (mas / "settings.json").write_text("{"), ["it is no JSON", "put a copy back"]),
        (
            lambda mas: (mas / "result.json").write_text("{}"),
            ["is not a result", "Put a copy back, or remove it: its run"],
        ),
    ],
)
def test_each_damage_to_a_run_is_named_with_what_to_do(run, capsys, harm, messages):
    harm(run / "mas")
    status, text = asked(run, capsys)
    assert status == 1
    assert text.endswith("damaged: 1\n")
    for message in messages:
        assert message in text


def test_it_is_said_where_within_a_task_a_run_is(run, capsys):
    kept = bookmark.Bookmark(run / "mas" / "seed_0" / bookmark.FILE, "2 digest", seconds=0.0)
    kept.keep("training", {"w": jnp.ones(3)}, losses=(0.5, 0.25), chosen=())
    status, text = asked(run, capsys)
    assert status == 0
    assert "within task number 3; epochs learned: 2\n" in text
    kept.keep("importance", {"w": jnp.ones(3)}, chunks=7, rows=100)
    text = asked(run, capsys)[1]
    assert "within task number 3; epochs learned: 2, parts of importance measured: 7" in text
    assert "which goes on from here" in text
    bookmark.Bookmark(run / "mas/seed_0" / bookmark.FILE, "1 digest", seconds=0.0).keep(
        "training", {"w": jnp.ones(3)}, losses=(), chosen=()
    )
    text = asked(run, capsys)[1]
    assert "within task number 2, which is not the one after those learned" in text


def test_a_memory_that_is_not_needed_any_more_is_no_damage(run, capsys):
    flip(run / "finetune" / "seed_0" / "memory_2.msgpack")
    status, text = asked(run, capsys)
    assert status == 0
    assert "not needed any more" in text


def test_the_advice_for_a_lost_result_is_right(run, monkeypatch):
    monkeypatch.setitem(registry.EXPERIMENTS, "tiny", tiny.EXPERIMENT)
    whole = json.loads((run / "finetune" / "result.json").read_text())
    (run / "finetune" / "result.json").unlink()
    config = tiny.Tiny(seeds=1, epochs=1)
    runs.run("tiny", config, "finetune", tiny.tasks(), run, lambda _: None, "python -m …")
    assert json.loads((run / "finetune" / "result.json").read_text()) == whole


def test_an_anchor_that_a_finished_run_has_lost_is_missed(run, capsys):
    config, tasks = tiny.Tiny(seeds=1, epochs=1), tiny.tasks()
    runs.run("tiny", config, "mas", tasks, run, lambda _: None, "python -m …")
    assert asked(run, capsys)[0] == 0
    shutil.rmtree(run / "mas" / "seed_0" / "anchors")
    status, text = asked(run, capsys)
    assert status == 1
    assert "anchors has no anchor of '4/1', '2/3', '0/5', which the run needs no more" in text


def test_what_the_store_never_reads_is_told(store, capsys):
    shutil.copytree(store / "0", store / "0 (copy)")
    (store / "notes.txt").write_text("mine")
    status, text = asked(store, capsys)
    assert status == 0
    assert f"{store / '0 (copy)'}: a copy of entry 0, which the store never reads" in text
    assert f"{store / 'notes.txt'}: it is not of this store" in text
    (store / "1").rename(store / "01")
    status, text = asked(store, capsys)
    assert status == 1
    assert f"{store / '01'}: the entry of task 'scenes', under a name that the store" in text
    assert "what to do: rename it back to 1\n" in text
    # Its number is given to the next one: it is no copy of that.
    made, params = AnchorStore(store), {"w": jnp.ones(3)}
    made.save("flowers", Anchor(params, params), objective="x", num_samples=1)
    status, text = asked(store, capsys)
    assert status == 1
    assert "1 is another entry now: move it into a folder of its own, named 1" in text
    (store / "01" / "metadata" / "metadata").write_text("{}")
    status, text = asked(store, capsys)
    assert status == 1
    assert "it looks like an entry that was renamed, and does not tell its number" in text


def test_a_store_is_known_by_its_entries_alone(tmp_path, capsys):
    folder, params = tmp_path / "runs", {"w": jnp.ones(3)}
    anchor = Anchor(params, params)
    AnchorStore(folder / "anchor").save("birds", anchor, objective="x", num_samples=1)
    (folder / "data" / "metadata").mkdir(parents=True)
    (folder / "anchor" / "0" / "metadata" / "metadata").write_text("{}")
    status, text = asked(tmp_path, capsys)
    assert status == 1
    assert f"damaged  {folder / 'anchor' / '0'}" in text
    # A first save that was killed, and a last deletion.
    for name in ("0.orbax-checkpoint-tmp", ".deleted/0/metadata"):
        killed = tmp_path / name.partition("/")[0].strip(".")
        (killed / name).mkdir(parents=True)
        (killed / ".lock").write_text("")
        status, text = asked(killed, capsys)
        assert status == 0
        assert "a store of anchors, whole ones 0" in text
        assert "the next save or delete removes it" in text


def test_an_entry_that_comes_while_it_looks_is_not_called_a_stranger(store, monkeypatch):
    made, params, left = AnchorStore(store), {"w": jnp.ones(3)}, [1]
    found = leftovers.found

    def coming(directory):
        if left:
            left.pop()
            made.save("flowers", Anchor(params, params), objective="x", num_samples=1)
        return found(directory)

    monkeypatch.setattr(leftovers, "found", coming)
    assert AnchorStore(store).examine().others == ()


def test_what_other_programs_write_is_not_called_a_store(tmp_path, store, capsys):
    (tmp_path / "other" / "3" / "default").mkdir(parents=True)
    (tmp_path / "other" / "3" / "_CHECKPOINT_METADATA").write_text("{}")
    (tmp_path / "locked").mkdir()
    for name in (".lock", "thesis"):
        (tmp_path / "locked" / name).write_text("")
    status, text = asked(tmp_path, capsys)
    assert status == 0
    assert str(tmp_path / "other") not in text
    assert str(tmp_path / "locked") not in text
    assert f"{store}: a store of anchors, whole ones 2" in text


def test_a_folder_of_something_else_is_an_error(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileNotFoundError, match="wanted the folder that a run was given as --out"):
        doctor.examine(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", str(tmp_path / "nowhere")])
    assert end.value.code == 2
    assert "is no folder" in capsys.readouterr().err
