"""Reading files and cutting them into parts that share nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from miras_search.errors import MirasError
from miras_search.tasks.corpus import Corpus, read_corpus

ENOUGH = 10**9


@pytest.fixture(autouse=True)
def no_cached_corpus() -> Iterator[None]:
    read_corpus.cache_clear()
    yield
    read_corpus.cache_clear()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def many(count: int, size: int = 50) -> dict[str, str]:
    """Files in a few folders, each of its own text."""
    return {f"f{i % 3}/n{i}.txt": f"<{i}>".ljust(size, chr(97 + i % 26)) for i in range(count)}


def names(corpus: Corpus) -> list[str]:
    return sorted(name for files in corpus.files.values() for name in files)


def test_small_files_are_split_whole_and_all_of_them_are_used(tmp_path: Path) -> None:
    files = many(100)
    corpus = read_corpus(str(write(tmp_path, files)), ENOUGH)
    assert corpus.split_by == "file"
    assert names(corpus) == sorted(files)
    assert [len(corpus.files[split]) for split in ("train", "validation", "test")] == [90, 5, 5]
    for split, part in corpus.parts.items():
        assert part.tobytes().decode() == "".join(files[name] + "\0" for name in corpus.files[split])


def test_the_standard_library_is_split_by_file_and_has_no_tests() -> None:
    corpus = read_corpus("stdlib", 2_000_000)
    assert corpus.split_by == "file"
    assert len(names(corpus)) == len(set(names(corpus))) > 50
    assert all(name.endswith(".py") for name in names(corpus))
    folders = {folder for name in names(corpus) for folder in name.split("/")[:-1]}
    assert folders.isdisjoint({"test", "tests", "idle_test", "site-packages", "lib2to3", "encodings"})
    sizes = {split: len(part) - len(corpus.files[split]) for split, part in corpus.parts.items()}
    assert sum(sizes.values()) == 2_000_000
    assert all(0.05 <= sizes[split] / 2_000_000 < 0.1 for split in ("validation", "test"))


def test_one_file_is_cut_into_regions_that_do_not_overlap(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(500))
    path = write(tmp_path, {"book.txt": text}) / "book.txt"
    corpus = read_corpus(str(path), ENOUGH)
    assert corpus.split_by == "region"
    train, validation, test = (corpus.parts[split].tobytes().decode() for split in ("train", "validation", "test"))
    assert train[:-1] + validation[:-1] + test[:-1] == text
    assert len(train) == pytest.approx(0.9 * len(text), abs=2)
    assert len(validation) == pytest.approx(0.05 * len(text), abs=2)


def test_a_giant_among_small_files_never_becomes_a_test_set(tmp_path: Path) -> None:
    corpus = read_corpus(str(write(tmp_path, {**many(40), "giant.txt": "x" * 1000})), ENOUGH)
    assert corpus.split_by == "file"
    assert "giant.txt" in corpus.files["train"]


def test_a_glob_takes_what_it_matches_and_names_it_from_its_fixed_part(tmp_path: Path) -> None:
    write(tmp_path, {**many(60), "deep/er/a.md": "a", "b.md": "b"})
    assert names(read_corpus(f"{tmp_path}/**/*.md", ENOUGH)) == ["b.md", "deep/er/a.md"]
    assert names(read_corpus(f"{tmp_path}/f1/*.txt", ENOUGH)) == sorted(
        name.removeprefix("f1/") for name in many(60) if name.startswith("f1/")
    )


def test_relative_sources_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"data/a.txt": "a" * 100, "b.txt": "b" * 100})
    monkeypatch.chdir(tmp_path)
    assert names(read_corpus("data", ENOUGH))[0] == "a.txt"
    assert set(names(read_corpus("**/*.txt", ENOUGH))) == {"b.txt", "data/a.txt"}


def test_hidden_files_caches_empty_files_and_copies_are_left_out(tmp_path: Path) -> None:
    extra = {".hidden": "h", ".git/config": "g", "__pycache__/m.pyc": "c", "empty.txt": "", "copy.txt": "same"}
    corpus = read_corpus(str(write(tmp_path, {**many(30), **extra, "copy2.txt": "same"})), ENOUGH)
    found = set(names(corpus)) - set(many(30))
    assert len(found) == 1 and found < {"copy.txt", "copy2.txt"}


def test_a_folder_that_links_to_itself_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, many(30))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(read_corpus(str(tmp_path), ENOUGH)) == sorted(many(30))


def test_the_cap_samples_the_tree_and_cuts_the_last_file(tmp_path: Path) -> None:
    root = str(write(tmp_path, many(200)))
    capped = read_corpus(root, 2520)
    assert len(names(capped)) == 51
    assert sum(len(part) for part in capped.parts.values()) == 2520 + 51
    assert {name.split("/")[0] for name in names(capped)} == {"f0", "f1", "f2"}


def test_one_more_file_does_not_move_the_others_at_random(tmp_path: Path) -> None:
    before = read_corpus(str(write(tmp_path, many(200))), ENOUGH)
    read_corpus.cache_clear()
    after = read_corpus(str(write(tmp_path, {"new.txt": "new"})), ENOUGH)
    moved = set(before.files["train"]) ^ set(after.files["train"])
    assert len(moved - {"new.txt"}) <= 2


def test_the_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one = read_corpus(str(write(tmp_path / "one", many(50))), ENOUGH)
    two = read_corpus(str(write(tmp_path / "two", many(50))), ENOUGH)
    changed = read_corpus(str(write(tmp_path / "three", {**many(50), "f0/n0.txt": "other"})), ENOUGH)
    assert one.hash == two.hash != changed.hash
    assert len(one.hash) == 64


def test_parts_cannot_be_written_to(tmp_path: Path) -> None:
    corpus = read_corpus(str(write(tmp_path, many(50))), ENOUGH)
    with pytest.raises(ValueError, match="read-only"):
        corpus.parts["train"][0] = np.uint8(1)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("missing", "no such file or folder"),
        ("*.none", "the pattern matches no file"),
        ("hollow", "no files but hidden ones"),
        ("empty.txt", "every file is empty"),
    ],
)
def test_nothing_to_read_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, what: str
) -> None:
    write(tmp_path, {"hollow/.hidden": "h", "empty.txt": ""})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MirasError, match=what) as error:
        read_corpus(source, ENOUGH)
    assert f"text corpus {source!r}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"secret.txt": "s"}) / "secret.txt"

    def refuse(self: Path, mode: str) -> None:  # a mode of 000 does not stop root, who runs tests in containers
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MirasError, match=r"cannot read .*secret\.txt: Permission denied"):
        read_corpus(str(path), ENOUGH)
