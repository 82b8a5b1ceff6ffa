"""Neurons as files: JSON, Parquet, and JSON in the shape of Neuronpedia's; written neuron by neuron."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from .files import Json, atomic_file, atomic_files
from .layout import with_ending

NEURONPEDIA = ".neuronpedia.json"
_DIGITS = 6
_ROWS = 500
"""Neurons in a group of rows of a Parquet file."""


def has_parquet() -> bool:
    """Whether pyarrow is there."""
    return find_spec("pyarrow") is not None


def save_neurons(path: Path, header: Json, rows: Iterable[Json], *, model: str, edges: Sequence[float]) -> list[Path]:
    """Write `<path>.json`, `<path>.neuronpedia.json` and, with pyarrow, `<path>.parquet`; all of them or none.

    Args:
        path: without ending.
        header: what stands in front of the neurons in the JSON.
        rows: the neurons (`NeuronCard.as_row`); read once, so that they need not all be in memory.
        model: name of the model, for Neuronpedia.
        edges: of the histograms' bins above 0.
    """
    paths = [with_ending(path, ending) for ending in (".json", NEURONPEDIA)]
    parquet = with_ending(path, ".parquet")
    with ExitStack() as stack:
        whole, pedia = stack.enter_context(atomic_files(*paths))
        table = _Table(stack.enter_context(atomic_file(parquet))) if has_parquet() else None
        _write(whole, json.dumps(_plain(header), ensure_ascii=False, indent=1)[:-2] + ',\n "neurons": [')
        _write(pedia, json.dumps({"model_id": model, "sae_set": "mlp", "features": None})[:-5] + "[")
        for number, row in enumerate(map(_plain, rows)):
            comma = "," if number else ""
            _write(whole, f"{comma}\n  {json.dumps(row, ensure_ascii=False)}")
            _write(pedia, f"{comma}\n {json.dumps(neuronpedia_feature(row, model, edges), ensure_ascii=False)}")
            if table is not None:
                table.add(row)
        _write(whole, "\n ]\n}\n")
        _write(pedia, "\n]}\n")
        if table is not None:
            table.close()
            paths.append(parquet)
    return paths


def neuronpedia_feature(row: Json, model: str, edges: Sequence[float]) -> Json:
    """One neuron as Neuronpedia's dashboards hold a feature: tokens and logits, a histogram, and activating texts.

    >>> language = {"language": "fr", "tokens": 4, "histogram": [3, 1], "contexts": []}
    >>> row = {"layer": 1, "index": 5, "languages": [language], "promotes": [], "suppresses": []}
    >>> found = neuronpedia_feature(row, "m", [])
    >>> found["layer"], found["index"], found["frac_nonzero"], found["freq_hist_data_bar_heights"]
    ('1-mlp', '5', 0.25, [1])
    """
    sums = [sum(column) for column in zip(*(one["histogram"] for one in row["languages"]), strict=True)]
    tokens = sum(one["tokens"] for one in row["languages"])
    lows = (0.0, *edges)
    contexts = [
        {
            "tokens": context["pieces"],
            "values": [value or 0.0 for value in context["activations"]],
            "maxValue": context["activation"],
            "maxValueTokenIndex": context["at"],
            "minValue": min((value for value in context["activations"] if value is not None), default=0.0),
            "dataSource": one["language"],
            "dataIndex": f"{one['language']}-{context['record']}-{context['answer']}-{context['position']}",
        }
        for one in row["languages"]
        for context in one["contexts"]
    ]
    return {
        "modelId": model,
        "layer": f"{row['layer']}-mlp",
        "index": str(row["index"]),
        "maxActApprox": max((one["maxValue"] for one in contexts), default=0.0),
        "frac_nonzero": sum(sums[1:]) / tokens if tokens else 0.0,
        "pos_str": [one["token"] for one in row["promotes"]],
        "pos_values": [one["logit"] for one in row["promotes"]],
        "neg_str": [one["token"] for one in row["suppresses"]],
        "neg_values": [one["logit"] for one in row["suppresses"]],
        "freq_hist_data_bar_values": list(lows[: len(sums) - 1]),
        "freq_hist_data_bar_heights": sums[1:],
        "activations": sorted(contexts, key=lambda one: -one["maxValue"]),
    }


class _Table:
    """A Parquet file that is written in groups of rows; its columns are those of the first row."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        self._rows: list[Json] = []
        self._schema = _schema(pyarrow)
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, row: Json) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _schema(pa: Any) -> Any:
    """The columns of the table of neurons."""
    text, whole, number = pa.string(), pa.int64(), pa.float64()
    context = {"record": whole, "answer": whole, "position": whole, "token": text, "activation": number,
               "pieces": pa.list_(text), "activations": pa.list_(number), "at": whole, "text": text}  # fmt: skip
    ends = ("change", "low", "high", "control_low", "control_high", "first_order")
    effect = {**dict.fromkeys(ends, number), "inside": pa.bool_()}
    logit = pa.list_(pa.struct({"token": text, "logit": number, "language": text, "script": text}))
    language = {"language": text, "own": pa.bool_(), "probability": number, "tokens": whole,
                "contexts": pa.list_(pa.struct(context)), "histogram": pa.list_(whole), "cosine": number,
                "effect": pa.struct(effect)}  # fmt: skip
    near = {"layer": whole, "index": whole, "cosine": number, "together": number}
    return pa.schema({
        "layer": whole, "index": whole, "expert": whole, "class": text, "own": pa.list_(text), "margin": number,
        "positive": number, "mean_logit": number, "languages": pa.list_(pa.struct(language)),
        "promotes": logit, "suppresses": logit,
        "scripts": pa.list_(pa.struct({"script": text, "tokens": whole})), "nearest": pa.list_(pa.struct(near)),
    })  # fmt: skip


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode("utf-8"))


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers to six digits, null for NaN and infinity."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        return [_plain(one) for one in value]
    return value
