"""Vectors of class names, from files of word vectors: word2vec, GloVe and FastText."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from envs.errors import UserError, first_line

Format = Literal["word2vec text", "word2vec binary", "GloVe", "FastText binary"]

# Number of bytes that tell the format; vectors of 300 values take 3 KB as text.
_HEAD = 2**16
_FASTTEXT = struct.pack("<i", 793712314)
_GZIP, _ZIP, _PICKLE = b"\x1f\x8b", b"PK", b"\x80"


def load_word_vectors(path: Path) -> Any:
    """The word vectors in a file, as Gensim's ``KeyedVectors``.

    The file's content says which format it has: word2vec's text (also FastText's ``.vec``) or
    binary format, GloVe's text, which has no header, or FastText's binary format, which makes
    vectors of unknown words from their parts. All but the last may be compressed, as ``.gz``.

    Raises:
        UserError: Gensim is not installed; the file is missing, damaged or of another kind.
    """
    try:
        from gensim.models import KeyedVectors
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise UserError(
            '--word-vectors needs Gensim, which is not installed: pip install "rlcnn[text]"'
        ) from error
    kind = file_format(path)
    if kind == "FastText binary" and path.suffix == ".gz":
        # Gensim reads its arrays from the compressed bytes.
        raise UserError(f'"{path}" holds FastText\'s binary format: unpack it first, by gunzip')
    try:
        if kind == "FastText binary":
            return load_facebook_vectors(str(path))
        return KeyedVectors.load_word2vec_format(
            str(path),
            binary=kind == "word2vec binary",
            no_header=kind == "GloVe",
            unicode_errors="replace",
        )
    # Whatever error a damaged file causes, the user's remedy is the same.
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        raise UserError(f'"{path}" cannot be read as {kind} word vectors: {reason}') from error


def file_format(path: Path) -> Format:
    """The format of a file of word vectors, by its first bytes.

    Raises:
        UserError: the file is missing or of another kind.
    """
    head = _read_head(path)
    if head.startswith(_FASTTEXT):
        return "FastText binary"
    first, _, rest = head.partition(b"\n")
    header = first.split()
    if len(header) == 2 and all(token.isdigit() for token in header):
        # The first vector: a word and its values.
        line = rest.partition(b"\n")[0]
        return "word2vec text" if _is_vector(line, int(header[1])) else "word2vec binary"
    if len(header) > 1 and _is_vector(first, len(header) - 1):
        return "GloVe"
    raise UserError(
        f'"{path}" holds no word vectors: expected those of word2vec (text or binary), GloVe (text)'
        " or FastText (.vec or .bin)"
    )


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f'--word-vectors "{path}" is a directory, not a file')
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_GZIP) and path.suffix == ".gz":
            with gzip.open(path) as file:
                head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise UserError(f'--word-vectors "{path}" does not exist') from error
    except (OSError, EOFError) as error:
        raise UserError(f'--word-vectors "{path}" cannot be read: {first_line(error)}') from error
    if not head:
        raise UserError(f'--word-vectors "{path}" is empty')
    if head.startswith(_GZIP):
        raise UserError(f'"{path}" is compressed by gzip: its name must end with .gz')
    if head.startswith(_ZIP):
        raise UserError(f'"{path}" is a zip archive: unpack it first')
    if head.startswith(_PICKLE):
        raise UserError(
            f'"{path}" is pickled, as by Gensim\'s save, and is not loaded: save_word2vec_format'
            " writes a file that can be read"
        )
    return head


def _is_vector(line: bytes, size: int) -> bool:
    """Whether a line is a word and its values."""
    values = line.split()[1:]
    with suppress(ValueError):
        return len(values) == size and all(np.isfinite(float(value)) for value in values)
    return False


def class_vectors(names: Sequence[str], vectors: Any) -> tuple[torch.Tensor, list[int]]:
    """Vectors of classes, float32 (classes, size), and the indices of those without one.

    A name that is a word or a phrase of the vocabulary (``hot_dog``) has its vector. Otherwise the
    vector is the mean of those of the words between spaces, underscores, hyphens and other
    punctuation. Words are looked up as they are written, then in lower case. The row of a class of
    which a word is missing is zero.

    Raises:
        UserError: a vector is not finite.
    """
    rows = torch.zeros(len(names), vectors.vector_size)
    missing = []
    for index, name in enumerate(names):
        found = _vector(name, vectors)
        if found is None:
            missing.append(index)
        elif not np.isfinite(found).all():
            raise UserError(f'the word vector of class "{name}" is not finite')
        else:
            rows[index] = torch.from_numpy(found)
    return rows, missing


def _vector(name: str, vectors: Any) -> npt.NDArray[np.float32] | None:
    phrase = "_".join(name.split())
    for key in (name, phrase, phrase.lower()):
        if key in vectors.key_to_index:
            return np.array(vectors[key], dtype=np.float32)
    found = []
    for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", name):
        known = [key for key in (word, word.lower()) if key in vectors.key_to_index]
        # FastText's binary files have vectors of words that are not in the vocabulary, too.
        if not known and word not in vectors:
            return None
        found.append(vectors[known[0] if known else word])
    return np.mean(found, axis=0, dtype=np.float32) if found else None
