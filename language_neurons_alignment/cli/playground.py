"""`lna playground`: the page on which one talks to a model with its language neurons turned down or up."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..config import Selection
from .options import EngineFlags, Model, Results, layout_of, only, with_lambda
from .output import note, notes, result
from .process import CTRL_C, Ended


def playground(
    model: Model,
    selection: Annotated[
        Selection, only("top_rate", "lam", "method", "neurons", "seed", lam="the mask's, if only one")
    ],
    results: Results,
    engine: EngineFlags,
    data: Annotated[
        Path | None,
        typer.Option("-d", "--data", help="Corpus whose first questions are examples.", show_default="the demo's"),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but a loopback address lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port.", show_default="the first free, from 7860")
    ] = None,
) -> None:
    """Talk to the model on a web page, with the language neurons of a mask turned down or up by sliders.

    Two answers stand beside each other, by the model as it is and by the model as changed, with the --do steps that do
    the same elsewhere. The page is reached from this machine alone and asks for nothing from a network. Ctrl-C ends it.

    Example: lna playground --model-path ./Mistral-7B-v0.1 -s mgsm -l 0.109375
    """
    selection = with_lambda(selection, model, results, "playground")
    from .._demo import demo_corpus_path
    from .._interventions import NeuronSource
    from .._loaded import load
    from .._playground import Playground
    from .._playground_page import check_ready, serve
    from ..corpus.records import read_corpus
    from ..store.masks import open_mask

    check_ready(host)
    layout = layout_of(model, results).by(selection)
    corpus = read_corpus(data or demo_corpus_path())
    added = {} if model.adapter is None else {"adapter": model.adapter}
    running = load(model.model_path, **added, **engine.choices())
    mask = open_mask(layout, top_rate=selection.top_rate, lam=selection.lam, checkpoint=running.checkpoint)
    room = Playground(running, NeuronSource.open(layout, mask=mask, checkpoint=running.checkpoint))
    notes(room.notes)
    examples = {one: corpus.of_language(one)[0] for one in room.languages if one in corpus.languages}
    with closing(room):
        page = serve(
            room,
            name=layout.model,
            examples={one: record.question or record.instruction for one, record in examples.items()},
            host=host,
            port=port,
        )
        with closing(page):
            if page.public:
                note(
                    f"{host} lets every machine in that can reach this one: all of them use this model, without a "
                    "password"
                )
            result(results.as_json, {"url": page.url, "public": page.public, "notes": room.notes}, page.url)
            sys.stdout.flush()
            try:
                page.wait()
            except Ended as ended:
                if ended.code != CTRL_C:
                    raise
                note("the playground is closed")
