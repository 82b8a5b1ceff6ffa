"""Results on a hub: a small server that speaks its API takes a commit, and an empty folder gets it back."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
from safetensors.torch import load_file

from language_neurons_alignment import identify
from language_neurons_alignment._share import pull, push
from language_neurons_alignment.analysis import analyze
from language_neurons_alignment.config import Selection
from language_neurons_alignment.errors import ArtifactError, ConflictError, LNAError
from language_neurons_alignment.store.files import digest_of_bytes
from language_neurons_alignment.store.layout import Layout
from language_neurons_alignment.store.masks import Mask
from tests.cli.conftest import Lna, lna  # noqa: F401 - the fixture
from tests.workspace import contents, small_records, store_counts, write_corpus

LANGUAGES, SELECTION = ("en", "es", "fr"), Selection(0.1, 0.0, 0.8)
REPO = "me/neurons"


class Hub:
    """What the server holds: repositories, with their visibility and files; large files by their digest."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.url = ""
        self.requests: list[str] = []


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

        def answer(self, code: int, content: object = None, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_POST(self) -> None:
            path, body = urlsplit(self.path).path, self.body()
            hub.requests.append(path)
            if path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if self.headers.get("Authorization") != "Bearer good":
                return self.answer(403, {"error": "forbidden"})
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.files.setdefault(name, {})
                hub.private.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
                return self.answer(200, {"url": f"{hub.url}/datasets/{name}", "name": name, "id": name})
            if path.endswith("/preupload/main"):
                large = (".pt", ".safetensors")
                modes = [(one["path"], one["path"].endswith(large)) for one in json.loads(body)["files"]]
                listed = [
                    {"path": one, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
                    for one, lfs in modes
                ]
                return self.answer(200, {"files": listed})
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                return self.answer(200, {"transfer": "basic", "objects": objects})
            if found := re.fullmatch(r"/api/datasets/(.+)/commit/main", path):
                files = hub.files[found[1]]
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        files[value["path"]] = hub.large[value["oid"]]
                url = f"{hub.url}/datasets/{found[1]}/commit/{commit_of(files)}"
                return self.answer(200, {"commitUrl": url, "commitOid": commit_of(files)})
            return self.answer(404, {"error": path})

        def do_PUT(self) -> None:
            content = self.body()
            digest = sha256(content).hexdigest()
            assert self.path == f"/large/{digest}"
            hub.large[digest] = content
            self.answer(200, {})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(path)
            found = re.fullmatch(r"/(?:api/)?datasets/([^/]+/[^/]+)(?:/(?:resolve|revision)/([^/]+)(?:/(.+))?)?", path)
            files = hub.files.get(found[1]) if found else None
            if found is None or files is None:
                return self.answer(404, {}, X_Error_Code="RepoNotFound")
            commit = commit_of(files)
            if found[2] not in (None, "main", commit):
                return self.answer(404, {}, X_Error_Code="RevisionNotFound")
            if found[3] is None:
                return self.answer(200, {"id": found[1], "sha": commit, "private": True, "siblings": []})
            if found[3] not in files:
                return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            content = files[found[3]]
            return self.answer(200, content, ETag=f'"{sha1(content).hexdigest()}"', X_Repo_Commit=commit)

    return Handler


def commit_of(files: dict[str, bytes]) -> str:
    return sha1(b"".join(name.encode() + one for name, one in sorted(files.items()))).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the server speaks plain LFS
    monkeypatch.setenv("HF_TOKEN", "good")
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Counts and a mask of one model, and of another whose name begins like it."""
    layout = Layout(tmp_path / "ours", "mgsm", "Llama-a")
    for one in (layout, Layout(layout.root, "mgsm", "Llama-a.b")):
        store_counts(one, LANGUAGES)
        identify.identify(one, LANGUAGES, SELECTION)
    write_corpus(layout.answers(), small_records(LANGUAGES))
    return layout


def test_what_is_pushed_and_pulled_gives_the_same_analysis(layout: Layout, hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[tuple[str, ...], int]] = []
    done = push(layout, REPO, announce=lambda files: told.append((files, len(hub.requests))))
    stored = hub.files[REPO]
    assert told == [(tuple(sorted(stored)), 0)]  # named before the first request
    assert done.files == told[0][0]
    assert hub.private == {REPO: True}
    assert len(hub.large) == 2 * 2 * len(LANGUAGES) + 1  # count files, their copies, the mask's copy
    assert not any("Llama-a.b" in name or name.startswith("answers") for name in stored)
    assert not any(str(tmp_path).encode() in content for content in stored.values())
    card = stored["README.md"].decode()
    assert all(one in card for one in ("Llama-a", "mgsm", "`w1`", "`0f`", "| 0.1 | 0.0 |", "lna pull me/neurons"))
    texts = push(layout, REPO, answers=True, dry_run=True)
    assert set(texts.files) - set(done.files) == {"answers/mgsm/answers.Llama-a.json"}
    assert "license" not in card.partition("---\n\n")[0]

    theirs = Layout(tmp_path / "theirs", "mgsm", "Llama-a")
    fetched = pull(REPO, theirs.root)
    assert (fetched.model, fetched.dataset, fetched.there) == ("Llama-a", "mgsm", 0)
    ours = contents(layout.root)
    assert contents(theirs.root) == {name: ours[name] for name in contents(theirs.root)}
    assert analyzed(theirs) == analyzed(layout)
    assert pull(REPO, theirs.root).files == ()


def analyzed(layout: Layout) -> dict[str, bytes]:
    analyze(layout, SELECTION)
    return contents(layout.root / "analysis")


def test_the_copies_in_safetensors_hold_the_same(layout: Layout, hub: Hub, tmp_path: Path) -> None:
    push(layout, REPO)
    for name, content in hub.files[REPO].items():
        if name.endswith(".safetensors"):
            (tmp_path / Path(name).name).write_bytes(content)
    mask = Mask.load(layout.mask(0.1, 0.0))
    copied = load_file(tmp_path / "mask.Llama-a.safetensors")
    for k, language in enumerate(mask.languages):
        assert copied[language].tolist() == mask.tensor[..., k].nonzero().tolist()
    import torch

    full = torch.load(layout.activation("fr"), weights_only=True)
    assert torch.equal(load_file(tmp_path / "activation.fr.Llama-a.pt.safetensors")["over_zero"], full["over_zero"])


def test_strangers_files_are_checked_before_any_comes_in(layout: Layout, hub: Hub, tmp_path: Path) -> None:
    push(layout, REPO)
    files, root = hub.files[REPO], tmp_path / "theirs"
    whole = dict(files)
    name = "activations/mgsm/activation.fr.Llama-a.pt"
    manifest = json.loads(files["lna_results.json"])

    def with_digests(changed: dict[str, str]) -> bytes:
        return json.dumps({**manifest, "files": {**manifest["files"], **changed}}).encode()

    files[name] = files[name][:-1] + b"\1"
    with pytest.raises(LNAError, match=r"activation\.fr\.Llama-a\.pt is not what its lna_results\.json lists"):
        pull(REPO, root)
    files[name] = b"no tensors"
    files["lna_results.json"] = with_digests({name: digest_of_bytes(files[name])})
    with pytest.raises(ArtifactError, match=r"not in order.*damaged"):
        pull(REPO, root)
    for outside in ("../evil", "activations/../../evil/x", "/etc/x/y", ".ssh/a/b", "activations/mgsm/.bashrc"):
        files["lna_results.json"] = with_digests({outside: ""})
        with pytest.raises(ArtifactError, match=r"lna_results\.json"):
            pull(REPO, root)
    assert not root.exists()
    files.update(whole)
    pull(REPO, root)
    before = contents(root)
    (root / name).write_bytes(b"mine")
    with pytest.raises(ConflictError, match="with other content"):
        pull(REPO, root)
    pull(REPO, root, overwrite=True)
    assert contents(root) == before


def test_nothing_damaged_is_sent(layout: Layout, hub: Hub) -> None:
    layout.activation("fr").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="the results to send are not in order"):
        push(layout, REPO)
    shutil.rmtree(layout.root)
    with pytest.raises(LNAError, match="no results of Llama-a on mgsm"):
        push(layout, REPO)
    assert not hub.requests


def test_the_commands_and_their_errors(
    layout: Layout,
    hub: Hub,
    tmp_path: Path,
    lna: Lna,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ("--model-path", "/x/a", "--model-name", "Llama", "-s", "mgsm", "--root", layout.root)
    tried = lna("push", REPO, *here, "--dry-run", "--json")
    assert (tried.code, tried.json["url"], hub.requests) == (0, None, []), tried.err
    assert "activations/mgsm/activation.fr.Llama-a.pt" in tried.err
    sent = lna("push", REPO, *here)
    assert (sent.code, sent.out.startswith(f"{hub.url}/datasets/{REPO}/commit/")) == (0, True), sent.err
    got = lna("pull", REPO, "--root", tmp_path / "theirs")
    assert (got.code, lna("check", tmp_path / "theirs").code) == (0, 0), got.err

    def failed(said: str, *call: object) -> None:
        call_ = lna(*call)
        last = call_.err.splitlines()[-1]
        assert call_.code in (1, 2)
        assert said in last, call_.err
        assert last.startswith("lna: ")

    other = ("--root", tmp_path / "other")
    failed("the hub has no data set me/none", "pull", "me/none", *other)
    failed("no such revision", "pull", REPO, "--revision", "v9", *other)
    failed("is no repository of the hub", "pull", "a/b/c", *other)
    monkeypatch.setenv("HF_TOKEN", "bad")
    failed("the hub answered 403", "push", REPO, *here)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    failed("no token to write", "push", REPO, *here)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    failed("cannot reach the hub", "pull", REPO, *other)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    failed("HF_HUB_OFFLINE is set", "pull", REPO, *other)
    assert not (tmp_path / "other").exists()
