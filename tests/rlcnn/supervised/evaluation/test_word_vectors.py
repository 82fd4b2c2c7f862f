"""Files of word vectors in every format, written by Gensim, and the vectors of class names."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.picture_files import refused

from rlcnn.supervised.evaluation.word_vectors import (
    class_vectors,
    file_format,
    load_word_vectors,
)

pytest.importorskip("gensim", reason='Gensim is not installed: pip install "rlcnn[text]"')

SIZE = 5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The vectors that Gensim learns from a short text, in every format."""
    from gensim.models import FastText, Word2Vec
    from gensim.models.fasttext import save_facebook_model

    place = tmp_path_factory.mktemp("vectors [1]")
    text = place / "text.txt"
    text.write_text("the cat sees the dog\nthe great white shark eats the dog\nthe cat sleeps\n")
    sentences = [line.split() for line in text.read_text().splitlines()]
    options: dict[str, Any] = {
        "vector_size": SIZE,
        "min_count": 1,
        "workers": 1,
        "seed": 0,
        "epochs": 2,
    }
    words = Word2Vec(sentences, **options).wv
    paths = {
        "word2vec text": place / "words.vec",
        "word2vec binary": place / "words.w2v",
        "GloVe": place / "glove.txt",
        "FastText binary": place / "fasttext.bin",
    }
    words.save_word2vec_format(str(paths["word2vec text"]))
    words.save_word2vec_format(str(paths["word2vec binary"]), binary=True)
    # GloVe's text is word2vec's without the header.
    words.save_word2vec_format(str(paths["GloVe"]), write_header=False)
    save_facebook_model(FastText(sentences, bucket=100, **options), str(paths["FastText binary"]))
    words.save(str(place / "words.kv"))
    return paths


def test_every_format_is_recognised_and_read(files: dict[str, Path], tmp_path: Path) -> None:
    read = {}
    for kind, path in files.items():
        assert file_format(path) == kind
        packed = tmp_path / f"{path.name}.gz"
        with path.open("rb") as source, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(source, target)
        assert file_format(packed) == kind
        read[kind] = load_word_vectors(path)
        assert read[kind].vector_size == SIZE
        if kind == "FastText binary":
            with refused("unpack it first, by gunzip"):
                load_word_vectors(packed)
            continue
        again = load_word_vectors(packed)
        assert np.array_equal(again["shark"], read[kind]["shark"])
    texts = read["word2vec text"]
    for kind in ("word2vec binary", "GloVe"):
        assert read[kind].key_to_index == texts.key_to_index
        np.testing.assert_allclose(read[kind].vectors, texts.vectors, rtol=1e-5)


def test_a_name_is_the_mean_of_its_words(files: dict[str, Path]) -> None:
    words = load_word_vectors(files["GloVe"])
    names = ["cat", "Great White shark", "white_shark", "cat, dog (the)", "cat-mouse", "---"]
    found, missing = class_vectors(names, words)
    expected = [
        words["cat"],
        (words["great"] + words["white"] + words["shark"]) / 3,
        (words["white"] + words["shark"]) / 2,
        (words["cat"] + words["dog"] + words["the"]) / 3,
    ]
    np.testing.assert_allclose(found[:4].numpy(), np.stack(expected), rtol=1e-5)
    # One word is enough to be missing.
    assert missing == [4, 5]
    assert not found[4:].any()


def test_a_phrase_of_the_vocabulary_has_its_own_vector(tmp_path: Path) -> None:
    path = tmp_path / "phrases.txt"
    path.write_text("hot 1 0\ndog 0 1\nhot_dog 5 5\nDog 7 7\n")
    found, missing = class_vectors(
        ["hot dog", "hot_dog", "Hot Dog", "dog", "Dog", "DOG"], load_word_vectors(path)
    )
    assert missing == []
    expected = [[5, 5], [5, 5], [5, 5], [0, 1], [7, 7], [0, 1]]
    assert torch.equal(found, torch.tensor(expected, dtype=torch.float32))


def test_fasttext_makes_vectors_of_unknown_words(files: dict[str, Path]) -> None:
    vectors = load_word_vectors(files["FastText binary"])
    found, missing = class_vectors(["sharks", "white sharks", "cat"], vectors)
    assert missing == []
    assert found.any(dim=1).all()
    np.testing.assert_allclose(found[2].numpy(), vectors["cat"], rtol=1e-5)
    mean = (vectors["white"] + vectors["sharks"]) / 2
    np.testing.assert_allclose(found[1].numpy(), mean, rtol=1e-5)


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.txt", None, "does not exist"),
        ("a.txt", b"", "is empty"),
        ("a.txt", b"once upon a time\n", "holds no word vectors: expected those of word2vec"),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "holds no word vectors"),
        ("a.zip", b"PK\x03\x04...", "is a zip archive: unpack it first"),
        ("a.txt", gzip.compress(b"cat 1 2\n", mtime=0), "its name must end with .gz"),
        ("a.txt.gz", gzip.compress(b"cat 1 2\n" * 99, mtime=0)[:30], "cannot be read"),
        ("a.kv", b"\x80\x05\x95", "is pickled, as by Gensim's save"),
        ("a.vec", b"3 2\ncat 1 2\ndog 3 4\n", "cannot be read as word2vec text"),
        ("a.vec", b"1 2\ncat 1 2 3\n", "cannot be read as word2vec binary"),
        ("a.txt", b"cat 1 2\ndog 3 4 5\n", "cannot be read as GloVe"),
        ("a.bin", b"\xba\x16\x4f\x2f\x0c\x00\x00", "cannot be read as FastText binary"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with refused(said, str(path)):
        load_word_vectors(path)


def test_a_directory_and_a_saved_gensim_object_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    with refused("is a directory"):
        load_word_vectors(tmp_path)
    with refused("is pickled"):
        load_word_vectors(files["GloVe"].parent / "words.kv")


def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 2\ndog nan 1\n")
    with refused('the word vector of class "dog" is not finite'):
        class_vectors(["cat", "dog"], load_word_vectors(path))
