"""Step 1: count, per language, on how many tokens each neuron fires (SPEC 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .config import OVERLONG, check_choice
from .core.counts import check_tally
from .corpus.encode import EncodedCorpus, encode_groups
from .corpus.records import records_hash
from .errors import ConflictError
from .session import Session, StartWork, silent, with_stored_answers
from .store.counts_file import Meta, load_counts, save_counts
from .store.layout import Layout
from .version import __version__


@dataclass(frozen=True)
class Collected:
    """One language's count files.

    Attributes:
        language: code.
        paths: the full and the prefix file.
        meta: provenance, as stored.
        reused: they were there already, made from the same model, corpus and settings.
    """

    language: str
    paths: list[Path]
    meta: Meta
    reused: bool


def collect_activations(
    session: Session, language: str, *, overlong: str = "error", force: bool = False, start: StartWork = silent
) -> Collected:
    """Count one language and store its two files; where they are there already, from the same inputs, do nothing.

    Args:
        session: model, corpus and place; a corpus without answers stands for this model's own (`with_stored_answers`).
        language: code of the language to count.
        overlong: what to do with sequences longer than the model allows: "error", "truncate" or "skip".
        force: count again whatever is there.
        start: told of the work, for a progress bar.

    Raises:
        ConflictError: counts of another model, corpus or setting stand there, and not `force`.
        CorpusError: no records, no answers, or sequences too long.
        TallyError: the engine did not count exactly the corpus's tokens; nothing is written.
    """
    check_choice(overlong, OVERLONG, "--overlong")
    session = with_stored_answers(session)
    layout, checkpoint, source = session.layout, session.checkpoint, session.source
    records = session.corpus.of_language(language)
    wanted: Meta = {
        "config_hash": checkpoint.config_hash,
        "weights_hash": checkpoint.weights_hash,
        "corpus_hash": records_hash(records),
        "overlong_policy": overlong,
        **source.explicit,
    }
    paths = [layout.activation(language), layout.activation(language, prefix=True)]
    if not force and paths[0].exists():  # the full file is written last: a prefix file alone is half a result
        return Collected(language, paths, _matching_meta(layout, language, wanted), reused=True)
    engine = source()
    encoded = encode_groups(records, engine.tokenizer, max_length=engine.model.max_length, overlong=overlong)
    counts = engine.count(encoded.groups, progress=start(language, encoded.full_tokens))
    check_tally(counts, full_tokens=encoded.full_tokens, prefix_tokens=encoded.prefix_tokens)
    meta = {**wanted, **_describe(encoded), **engine.provenance, "language": language, "version": __version__}
    save_counts(layout, language, counts, meta)
    return Collected(language, paths, meta, reused=False)


def _matching_meta(layout: Layout, language: str, wanted: Meta) -> Meta:
    """The provenance of counts that are there, if it is the one wanted."""
    _, meta = load_counts(layout, language)
    for key, value in wanted.items():
        if meta.get(key) != value:
            raise ConflictError(
                f"{layout.activation(language)} is there with {key} {meta.get(key)!r}, this run has {value!r}: "
                "use --force to count again, or another --root or -s"
            )
    return meta


def _describe(encoded: EncodedCorpus) -> Meta:
    return {
        "sequences": encoded.sequences,
        "overlong": encoded.overlong,
        "boundary_cases": encoded.boundary_cases,
    }
