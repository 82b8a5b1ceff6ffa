"""The playground as a web page: the one module that imports Gradio (decision 0070).

The page speaks with this process alone: scripts and styles come from the package, fonts from the visitor's system. It
keeps nothing: what a visitor asks and is answered stays in that visitor's own page.
"""

from __future__ import annotations

import html
import ipaddress
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Event
from typing import Any

from ._playground import DOUBLED, MEAN, MOST, MOST_TOKENS, Answer, Answers, Choice, Playground
from .config import Sampling
from .corpus.language_id import known_languages
from .errors import EngineError, LNAError, MissingPackageError, SettingsError, visible
from .languages import language_name

LOOPBACK = "127.0.0.1"
"""Where the page is served unless another address is given: this machine alone reaches it."""
_VISITORS = 32
"""Visitors whose questions can wait at the same time; more wait in Gradio's own queue."""
_FINISHED = {
    "eos": "ended by the model",
    "stop": "ended by the model",
    "length": "cut off at its longest",
    "cancelled": "stopped",
}
_STYLE = """
textarea { unicode-bidi: plaintext }
.gradio-container { max-width: 1100px !important; margin: 0 auto !important }
.lna-answer textarea { min-height: 11em }
.lna-said { min-height: 3em; font-size: 0.9em }
.lna-wrong { color: #b3261e; font-weight: 600 }
.dark .lna-wrong { color: #ff8a80 }
.lna-do textarea, .lna-link textarea { font-family: ui-monospace, monospace; font-size: 0.85em }
@media (max-width: 640px) { .gradio-container { padding: 0.5rem !important } }
"""
_KEEP_IN_ADDRESS = """(query) => {
  const link = location.origin + location.pathname + (query ? '?' + query : '');
  history.replaceState(null, '', link);
  return link;
}"""


@dataclass(frozen=True)
class Served:
    """A page that is open.

    Attributes:
        url: its address on this machine.
        public: whether other machines can reach it.
    """

    url: str
    public: bool
    blocks: Any

    def wait(self) -> None:
        """Wait until something, such as Ctrl-C, ends the program."""
        while True:
            time.sleep(3600)

    def close(self) -> None:
        """Close the page; the playground stays."""
        self.blocks.close(verbose=False)


def check_ready(host: str = LOOPBACK) -> None:
    """Refuse what would keep the page from opening, before a model is loaded.

    Raises:
        MissingPackageError: Gradio, or lingua, is not installed.
        SettingsError: the address is none.
    """
    if find_spec("gradio") is None:
        raise MissingPackageError.of("gradio", purpose="the playground", extra="playground")
    known_languages(())
    _is_loopback(host)


def serve(
    playground: Playground,
    *,
    name: str,
    examples: Mapping[str, str] | None = None,
    host: str = LOOPBACK,
    port: int | None = None,
) -> Served:
    """Open the page.

    Args:
        playground: what answers.
        name: of the model, for the page's heading.
        examples: language → a prompt to begin with.
        host: address to listen on; other machines reach the page on any but a loopback address.
        port: None: the first free one from 7860 on.

    Raises:
        MissingPackageError: Gradio, or lingua, is not installed.
        SettingsError: an address that is none, or a port that cannot be had.
        EngineError: Gradio cannot open the page.
    """
    check_ready(host)
    loopback = _is_loopback(host)
    with _gradio_alone():
        import gradio
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        blocks = _Page(gradio, playground, name=name, examples=dict(examples or {})).blocks
        # a page of the internet must not reach this one by a name that leads to the loopback address
        named = [Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost", host])] if loopback else []
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                app_kwargs={"middleware": named},
                prevent_thread_lock=True,
                inline=False,
                quiet=True,
                share=False,
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                max_file_size=1,  # byte: nothing is uploaded
                root_path="",
                footer_links=[],
                theme=_theme(gradio),
                css=_STYLE,
            )
        except OSError as error:
            where = host if port is None else f"{host}:{port}"
            raise SettingsError(
                f"the playground cannot listen on {where} (is another program there?): give another --port or --host"
            ) from error
        except ValueError as error:  # the page does not answer itself
            raise EngineError(f"the playground does not answer on {host}: {' '.join(str(error).split())}") from error
    return Served(url.rstrip("/"), not loopback, blocks)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise SettingsError(
            f"--host {host!r} is no address: give 127.0.0.1 (this machine alone), or 0.0.0.0 (every machine that "
            "reaches this one)"
        ) from error


@contextmanager
def _gradio_alone() -> Iterator[None]:
    """While the context is open, no setting of the environment opens the page wider, and no proxy stands in between."""
    before = dict(os.environ)
    for variable in before:
        if variable.startswith("GRADIO_") and variable != "GRADIO_TEMP_DIR":
            del os.environ[variable]
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", NO_PROXY="*", no_proxy="*")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _theme(gradio: Any) -> Any:
    """Gradio's plain theme with the system's fonts: its own would be fetched."""
    return gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


class _Page:
    """The page's parts and what happens when they are used."""

    def __init__(self, gradio: Any, playground: Playground, *, name: str, examples: dict[str, str]) -> None:
        self._gradio = gradio
        self._playground = playground
        self._stops: dict[str, Event] = {}  # by visitor
        self._last = playground.model.info.layers - 1
        self.blocks = gradio.Blocks(title=f"{name}: playground", analytics_enabled=False)
        with self.blocks:
            gradio.HTML(
                f"<h1>{html.escape(visible(name, keep=''))}</h1><p>One prompt, two answers: by the model as it is, and "
                "by the model with its language neurons turned down or up.</p>"
            )
            self._build(examples)
            self._connect()

    def _build(self, examples: dict[str, str]) -> None:
        gr, playground = self._gradio, self._playground
        self.prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt", placeholder="Ask something")
        if examples:
            shown = [[text] for text in examples.values()]
            labels = [f"{language_name(code)}: {text[:60]}" for code, text in examples.items()]
            gr.Examples(shown, [self.prompt], example_labels=labels, cache_examples=False, label="Examples")
        with gr.Row():
            self.go = gr.Button("Answer", variant="primary", elem_id="go")
            self.stop = gr.Button("Stop", elem_id="stop")
            self.reset = gr.Button("All sliders to 1", elem_id="reset")
        with gr.Row():
            self.texts, self.said = [], []
            for title, key in (("As it is", "undisturbed"), ("Changed", "changed")):
                with gr.Column(min_width=280):
                    self.texts.append(
                        gr.Textbox(
                            label=title, lines=7, interactive=False, elem_id=key, elem_classes=["lna-answer"],
                            buttons=["copy"],
                        )
                    )  # fmt: skip
                    self.said.append(gr.HTML(elem_id=f"{key}-said", elem_classes=["lna-said"]))
        self.sliders = []
        with gr.Row():
            for code in playground.languages:
                label = f"{language_name(code)} ({code})"
                self.sliders.append(
                    gr.Slider(0, MOST, value=1, step=0.05, label=label, min_width=220, elem_id=f"slider-{code}")
                )
        with gr.Row():
            uppers = [("twice their activations", DOUBLED)]
            if playground.means:
                uppers.append(("their mean in the language", MEAN))
            info = "At 0 a language's neurons are off, at 1 they are as they are, and at 2 they have"
            self.upper = gr.Radio(uppers, value=DOUBLED, label="The sliders", info=info, elem_id="upper")
            self.classes = gr.CheckboxGroup(
                list(playground.classes), value=["specific", "related"], label="Classes of neurons", elem_id="classes"
            )
            self.first = gr.Slider(0, self._last, value=0, step=1, label="First layer", elem_id="first")
            self.last = gr.Slider(0, self._last, value=self._last, step=1, label="Last layer", elem_id="last")
        self.line = gr.Textbox(
            label="The same on the command line", interactive=False, lines=1, buttons=["copy"], elem_id="line",
            elem_classes=["lna-do"],
        )  # fmt: skip
        with gr.Accordion("How it answers", open=False), gr.Row():
            self.template = gr.Radio(
                [("as a chat" if one == "chat" else "as plain text", one) for one in self._templates],
                value=self._templates[0], label="The prompt is given", elem_id="template",
            )  # fmt: skip
            self.tokens = gr.Slider(1, MOST_TOKENS, value=64, step=1, label="Longest answer in tokens")
            self.temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature", info="0: the likeliest token")
            self.seed = gr.Number(value=0, precision=0, label="Seed")
        self.link = gr.Textbox(
            label="Link to all of this, the prompt included", interactive=False, lines=1, buttons=["copy"],
            elem_id="link", elem_classes=["lna-link"],
        )  # fmt: skip
        self.query = gr.Textbox(visible=False)

    @property
    def _templates(self) -> list[str]:
        return ["chat", "plain"] if self._playground.chat else ["plain"]

    def _connect(self) -> None:
        gr = self._gradio
        for method in (_Page._open, _Page._ask, _Page._stop):  # Gradio hands a request to where its type stands
            method.__annotations__["request"] = gr.Request
        fields = [
            self.prompt, self.upper, self.classes, self.first, self.last, self.template, self.tokens, self.temperature,
            self.seed, *self.sliders,
        ]  # fmt: skip
        shown = [self.line, self.query, self.said[1]]
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        gr.on([one.change for one in fields], self._choose, fields, shown, trigger_mode="always_last", **quiet)
        self.query.change(None, [self.query], [self.link], js=_KEEP_IN_ADDRESS, api_visibility="private")
        gr.on(
            [self.go.click, self.prompt.submit],
            self._ask,
            fields,
            [*self.texts, *self.said],
            api_visibility="private",
            concurrency_limit=_VISITORS,
            show_progress="hidden",
        )
        self.stop.click(self._stop, **quiet)
        self.reset.click(lambda: [1] * len(self.sliders), None, self.sliders, **quiet)
        self.blocks.load(self._open, None, fields, **quiet)
        self.blocks.unload(self._stop)

    def _choice(self, values: tuple[Any, ...]) -> Choice:
        """What the fields of the page hold."""
        prompt, upper, classes, first, last, template, tokens, temperature, seed, *sliders = values
        whole = (first, last) == (0, self._last)
        return Choice(
            prompt or "",
            dict(zip(self._playground.languages, sliders, strict=True)),
            upper,
            tuple(classes),
            None if whole else (int(first), int(last)),
            template,
            Sampling(max_new_tokens=int(tokens), temperature=temperature, seed=int(seed or 0)),
        )

    def _choose(self, *values: Any) -> list[str]:
        """The --do line, the link's query, and what is wrong with the choice."""
        try:
            choice = self._choice(values)
            return [self._playground.line(choice), choice.query(), ""]
        except LNAError as error:
            return ["", "", _wrong(error)]

    def _open(self, request: Any) -> list[Any]:
        """The fields of a link."""
        query, kept = str(request.request.url.query), [self._gradio.skip()] * (9 + len(self.sliders))
        if not query:  # the visitor may have begun to type
            return kept
        try:
            choice = Choice.of_query(query)
            self._playground.steps(choice)
        except LNAError as error:
            self._gradio.Warning(html.escape(visible(str(error))))
            return kept
        first, last = choice.layers or (0, self._last)
        sampling = choice.sampling
        sliders = [choice.sliders.get(language, 1) for language in self._playground.languages]
        return [
            choice.prompt, choice.upper, list(choice.classes), first, last, choice.template, sampling.max_new_tokens,
            sampling.temperature, sampling.seed, *sliders,
        ]  # fmt: skip

    def _ask(self, request: Any, *values: Any) -> Iterator[list[str]]:
        """Both answers as they come."""
        self._stop(request)
        stop = self._stops[str(request.session_hash)] = Event()
        try:
            choice = self._choice(values)
            moved = bool(choice.sliders)
            for seen in self._playground.answers(choice, stop):
                yield _shown(seen, moved)
        except LNAError as error:
            yield ["", "", "", _wrong(error)]
        finally:
            stop.set()
            if self._stops.get(str(request.session_hash)) is stop:
                del self._stops[str(request.session_hash)]

    def _stop(self, request: Any) -> None:
        """End this visitor's answers as they are."""
        stop = self._stops.get(str(request.session_hash))
        if stop is not None:
            stop.set()


def _wrong(error: LNAError) -> str:
    return f'<span class="lna-wrong">{html.escape(visible(" ".join(str(error).split())))}</span>'


def _shown(seen: Answers, moved: bool) -> list[str]:
    """Both texts, and what is known of each."""
    if seen.ahead:
        return ["", "", f"waiting: {seen.ahead} before you", ""]
    changed = seen.changed
    said = _known(changed)
    if not moved and changed.finish is not None:
        said = "no slider is moved, so this is the same answer"
    return [seen.undisturbed.text, changed.text, _known(seen.undisturbed), said]


def _known(answer: Answer) -> str:
    """A finished answer's language, perplexity, length and end."""
    if answer.finish is None:
        return "…" if answer.text else ""
    language = answer.language
    spoken = "too short to tell its language"
    if language is not None:
        spoken = f"{language_name(language.language)} ({100 * language.confidence:.0f} % sure)"
    found = "" if answer.perplexity is None else f"perplexity under the undisturbed model {answer.perplexity:.4g}"
    parts = [f"<b>{html.escape(spoken)}</b>", found, f"{answer.tokens} tokens", _FINISHED[answer.finish]]
    return " · ".join(part for part in parts if part)
