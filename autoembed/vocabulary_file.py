"""The vocabularies of all fields as one safetensors file: `Vocabulary.tensors` of field i as `i.NAME`.

Fields whose ids are hashed have none and no tensors in the file.
"""

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from autoembed.data.hashed_ids import FieldIds, HashedIds
from autoembed.data.vocabulary import Vocabulary
from autoembed.files import write_file

VOCABULARY_METADATA = {"format": "autoembed-vocabulary 1"}


class VocabularyError(ValueError):
    """A vocabulary file cannot be used: it is cut off, altered, or of another version."""


def write_vocabularies(path: Path, vocabularies: Sequence[FieldIds]) -> int:
    """Write the file, whole or not at all; returns its bytes."""
    tensors = {
        f"{number:03d}.{name}": tensor
        for number, vocabulary in enumerate(vocabularies)
        for name, tensor in vocabulary.tensors().items()
    }
    return write_file(path, [save(tensors, metadata=VOCABULARY_METADATA)])


def read_vocabularies(path: Path, hashed: Sequence[HashedIds | None]) -> tuple[FieldIds, ...]:
    """The vocabularies of all fields, in order; `hashed` says which have none. Raises VocabularyError naming
    the file."""
    fields = len(hashed)
    found: list[dict[str, object]] = [{} for _ in range(fields)]
    try:
        with safe_open(path, framework="np") as file:
            if file.metadata() != VOCABULARY_METADATA:
                raise VocabularyError(
                    f"{path}: expected a file with metadata {VOCABULARY_METADATA}, found {file.metadata()}"
                )
            for key in file.keys():  # noqa: SIM118
                number, _, name = key.partition(".")
                if not number.isdigit() or int(number) >= fields:
                    raise VocabularyError(f"{path}: a tensor {key!r} belongs to none of {fields} fields")
                found[int(number)][name] = file.get_tensor(key)
        return tuple(
            ids if ids is not None and not tensors else Vocabulary.from_tensors(tensors)  # type: ignore[arg-type]
            for ids, tensors in zip(hashed, found, strict=True)
        )
    except FileNotFoundError:
        raise VocabularyError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise VocabularyError(f"{path}: cut off, altered or no vocabulary file: {error}") from None
