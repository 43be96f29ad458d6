"""What may be asked of `predict`, and how files are named in what it writes and says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xray_classifier.classifier import GateMode
from xray_classifier.data.inputs import LIST_MARK
from xray_classifier.errors import OutputError
from xray_classifier.files import printable
from xray_classifier.pseudonyms import key_id, key_is_kept, key_path, pseudonym
from xray_classifier.terminal import command


@dataclass(frozen=True)
class Prediction:
    """How files are scored, and what their rows say.

    Attributes:
        file_format: csv, jsonl or parquet; None goes by the ending of the table's name.
        threshold: `auto` or a policy, see `load_classifier`.
        device: Where to compute.
        workers: How many files are decoded at a time; None is one per core.
        force: Replace an existing table.
        prevalence: Share of sick where the answers are used: adds `p_at_prevalence`.
        only_new: Keep the rows for the next time, and score only files that changed since.
        follow_symlinks: Follow links that lead out of folders.
        hash_names: Keyed hashes for names, in rows and messages.
        patient: Add a keyed hash of the patient.
        study: Add the DICOM UIDs of study and image, and write a table per study.
        isolate: Decode in processes of their own, which may die.
        fast: Decode large JPEG films at a fraction of their size, see `fast_decoding`.
        gate: What to do with images unlike the training data, and with DICOM files whose header
            contradicts the intended use: refuse, warn (score them; refuse the latter) or off.
        max_failed: How many files may fail, such as `5` or `10%`, before the exit code says so.
        max_rejected: The same for files that are rejected.
        words: The command as it was typed; empty for a caller in Python.
    """

    file_format: str | None = None
    threshold: str | float = "auto"
    device: str = "auto"
    workers: int | None = None
    force: bool = False
    prevalence: float | None = None
    only_new: bool = False
    follow_symlinks: bool = False
    hash_names: bool = False
    patient: bool = False
    study: bool = False
    isolate: bool = True
    fast: bool = False
    gate: GateMode = "warn"
    max_failed: str = "0"
    max_rejected: str = "0"
    words: tuple[str, ...] = ()

    def row_name(self, name: str) -> str:
        """What the column `path` says of a file."""
        return name_hash(name) if self.hash_names else name

    def shown(self, name: object) -> str:
        """What a message says of a file."""
        return name_hash(str(name)) if self.hash_names else printable(name)

    def typed(self, inputs: Sequence[Path]) -> list[str]:
        """The command for the file of facts, without names where those are hashed."""
        if not self.hash_names:
            return list(self.words)
        names = {str(given): name_hash(str(given)) for given in inputs}
        lists = {n: LIST_MARK + name_hash(n[1:]) for n in names if n.startswith(LIST_MARK)}
        return [{**names, **lists}.get(str(Path(word)), word) for word in self.words]

    def next_command(self, checkpoint: Path) -> str:
        """What a person might do next."""
        return command("evaluate", checkpoint, "--data", "LABELLED_FOLDER")


def name_hash(name: str) -> str:
    """The keyed hash of a file, by its name as the column `path` would give it."""
    return pseudonym(f"file name: {name}/")  # a slash, since blanks at the end of a name count


def require_key() -> None:
    """See to it that hashes will be the same tomorrow, and in every process.

    Raises:
        OutputError: The key cannot be kept.
    """
    key_id()  # made when it is first needed
    if not key_is_kept():
        raise OutputError(
            f"the key of the hashes cannot be kept at {printable(key_path())}; name a folder that "
            "may be written to with XDG_CONFIG_HOME"
        )
