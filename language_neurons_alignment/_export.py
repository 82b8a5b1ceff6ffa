"""A model whose neurons are off, or scaled, in its weights: an ordinary checkpoint that any engine runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ._interventions import NeuronSource
from ._operations import Steps
from .engines.checkpoint import expand, load_config
from .engines.quantization import method_of
from .engines.transformers import TransformersEngine
from .errors import EngineError, SettingsError
from .store.checkpoint import local_folder
from .store.files import Json
from .store.weights import NOTE, save_model, weight_files
from .version import __version__


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote.

    Attributes:
        folder: the model.
        note: the file in it that says what was folded.
        neurons: how many neurons each changed layer has.
        tensors: names of the changed tensors.
    """

    folder: Path
    note: Path
    neurons: dict[int, int]
    tensors: tuple[str, ...]


def export_model(model_path: str, steps: Steps, source: NeuronSource, out: Path) -> Exported:
    """Fold steps into a model's down projections, and write it as a model folder.

    With s the factor of a neuron and w its column of the down projection, w ← s · w: the MLP adds what it adds where
    the activation is a ← s · a. A step that shifts (`set`, `mean`, …) is folded into the down projection's bias, in a
    plain MLP that has one. Config, tokenizer, chat template and generation config are copied; the weights lie in as
    many safetensors as before, in the same precision.

    >>> from pathlib import Path
    >>> from language_neurons_alignment._interventions import NeuronSource
    >>> from language_neurons_alignment._operations import Steps
    >>> path = Path("neurons.json")
    >>> size = path.write_text("[[0, 3], [2, 5]]")
    >>> steps = Steps.parse("zero @neurons.json")
    >>> export_model("model", steps, NeuronSource.open(None, steps), Path("exported")).neurons
    {0: 1, 2: 1}

    Args:
        model_path: folder or hub id.
        steps: what is folded.
        source: the neurons and means that they name.
        out: the folder to write; there must be none.

    Raises:
        SettingsError: no steps, or steps that would change nothing.
        EngineError: the model or a step cannot be folded.
        ConflictError: `out` is there.
    """
    if not steps.steps:
        raise SettingsError("nothing to fold: give --do, for example --do 'zero fr'")
    path = expand(model_path)
    config, folder = load_config(path, None), local_folder(path)
    if (method := method_of(config)) is not None:
        raise EngineError(
            f"the weights of {model_path} are quantized ({method}), and scaled columns would be rounded anew: export "
            "the model that they were made from"
        )
    if folder is None:
        raise EngineError(
            f"{model_path} is neither a model folder nor a hub model in the cache, and only those can be exported: "
            "give the folder of the safetensors that it was made from"
        )
    files = weight_files(folder)
    engine = TransformersEngine.load(model_path, device="cpu")
    try:
        intervention = source.intervention(steps, engine.model)
        changed = dict(engine.fold(intervention, files))
        neurons = {layer: int(intervention.touched[layer].sum()) for layer in intervention.layers}
    finally:
        engine.close()
    checkpoint = source.checkpoint
    note: Json = {
        "made_by": f"language_neurons_alignment {__version__}",
        "model": model_path if folder != Path(path) else folder.resolve().name,
        "config_hash": checkpoint.config_hash,
        "weights_hash": checkpoint.weights_hash,
        **source.describe(steps),
        "folded_neurons": neurons,
        "changed_tensors": sorted(changed),
        "precision": "zero is exact; a factor or shift is computed in float64 and rounded once to the stored precision",
    }
    save_model(folder, out, changed, files, note)
    return Exported(out, out / NOTE, neurons, tuple(sorted(changed)))
