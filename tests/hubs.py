"""Hubs on this machine: servers that speak as much of Hugging Face's and of Kaggle's API as their own packages ask for.

These packages themselves run in the tests.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
import time
import types
import urllib.parse

import pytest


class Hub:
    """What all have: a server, a list of requests, and a status that it answers with instead of working."""

    def __init__(self):
        self.requests, self.ranges, self.status, self.token = [], [], None, None
        self.cut = None  # bytes of a body after which it hangs up, once
        self.pause = 0  # seconds before a large body
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def any(self):
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                outer.requests.append(f"{self.command} {self.path}")
                outer.ranges.append(self.headers.get("Range"))
                outer.answer(self, urllib.parse.unquote(self.path.split("?")[0]), body)

            do_GET = do_HEAD = do_POST = do_PUT = any

            def log_message(self, *_):
                pass

        self.running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: self.running.serve_forever(0.05), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.running.server_address[1]}"

    def close(self):
        self.running.shutdown()
        self.running.server_close()

    def fetched(self, verb="GET"):
        """The paths of what was asked for."""
        return [one.split(" ", 1)[1] for one in self.requests if one.startswith(verb + " ")]

    def send(self, handler, status, body=b"", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": len(body), **dict(headers)}
        for key, value in headers.items():
            handler.send_header(key, str(value))
        handler.end_headers()
        if handler.command != "HEAD":
            time.sleep(self.pause if len(body) > 100_000 else 0)
            cut, self.cut = (self.cut, None) if self.cut and len(body) > self.cut else (None, self.cut)
            handler.wfile.write(body[:cut])
            if cut:
                handler.close_connection = True


class HuggingFace(Hub):
    """`repos`: name -> {"private": bool, "revisions": {revision: {path: bytes}}}."""

    def __init__(self):
        super().__init__()
        self.repos, self.blobs, self.gated, self.bad_yaml = {}, {}, set(), None

    def put(self, name, files, revision="main", private=False):
        repo = self.repos.setdefault(name, {"private": private, "revisions": {"main": {}}})
        repo["revisions"][revision] = files

    def commit_of(self, files):
        return hashlib.sha1(repr(sorted((path, hashlib.sha1(it).digest()) for path, it in files.items())).encode())

    def answer(self, handler, path, body):
        if self.status:
            return self.send(handler, self.status, {"error": "no"}, {"X-Error-Message": "no"})
        missing = 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        token = handler.headers.get("Authorization")
        may_write = self.token is None or token == f"Bearer {self.token}"
        if path == "/api/validate-yaml":
            problems = [{"message": self.bad_yaml}] if self.bad_yaml else []
            return self.send(handler, 400 if problems else 200, {"errors": problems, "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if not may_write:
                return self.send(handler, 403, {"error": "Forbidden"})
            there = name in self.repos
            if not there:
                self.put(name, {}, private=asked.get("visibility") == "private" or bool(asked.get("private")))
            return self.send(handler, 409 if there else 200, {"url": f"{self.url}/{name}"})
        if match := re.fullmatch("/blobs/([0-9a-f]{64})", path):
            self.blobs[match[1]] = body
            return self.send(handler, 200)
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/blobs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.send(handler, 200, {"objects": objects, "transfer": "basic"})
        match = re.fullmatch(
            r"(?:/api/models)?/([^/]+/[^/]+)(?:/(resolve|revision|branch|preupload|commit)/(.+))?", path
        )
        repo = self.repos.get(match[1]) if match else None
        if repo is None or (repo["private"] and token != f"Bearer {self.token}"):
            return self.send(handler, *missing)
        if match[1] in self.gated:
            return self.send(handler, 403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        return self.of_repo(handler, repo, match[1], match[2], match[3] or "main", body)

    def of_repo(self, handler, repo, name, what, rest, body):
        if what == "branch":
            there = rest in repo["revisions"]
            repo["revisions"].setdefault(rest, dict(repo["revisions"]["main"]))
            return self.send(handler, 409 if there else 200, {})
        commits = {self.commit_of(files).hexdigest(): files for files in repo["revisions"].values()}
        known = {**commits, **repo["revisions"]}
        revision = max((one for one in known if f"{rest}/".startswith(f"{one}/")), key=len, default=None)
        if revision is None:
            return self.send(handler, 404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        files = known[revision]
        commit = self.commit_of(files).hexdigest()
        if what in (None, "revision"):
            return self.send(handler, 200, {"id": name, "sha": commit, "private": repo["private"], "siblings": []})
        if what == "preupload":
            modes = [
                {"path": one["path"], "shouldIgnore": False, "uploadMode": mode}
                for one in json.loads(body)["files"]
                for mode in ["lfs" if one["path"].endswith(".safetensors") else "regular"]
            ]
            return self.send(handler, 200, {"files": modes})
        if what == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            new = dict(files)
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    new[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    new[value["path"]] = self.blobs[value["oid"]]
                else:
                    repo["message"] = value["summary"]
            repo["revisions"][revision] = new
            oid = self.commit_of(new).hexdigest()
            return self.send(handler, 200, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid})
        path = rest.removeprefix(revision).lstrip("/")
        if path not in files:
            return self.send(handler, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        if start and handler.command == "GET":
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            return self.send(handler, 206, content[int(start[1]) :], headers)
        return self.send(handler, 200, content, headers)


class Kaggle(Hub):
    """`models`: "owner/model/keras/variation" -> a list of {path: bytes}, a version each."""

    def __init__(self):
        super().__init__()
        self.models, self.blobs, self.made = {}, {}, []

    def answer(self, handler, path, body):
        if match := re.fullmatch(r"/(blob|file)/(\d+)(?:/.*)?", path):
            if handler.command == "PUT":
                self.blobs[match[2]] = self.blobs[match[2]][0], body
                return self.send(handler, 200)
            content = self.blobs[match[2]][1]
            start = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
            content = content[int(start[1]) :] if start else content
            return self.send(handler, 206 if start else 200, content, {"Accept-Ranges": "bytes", "Content-Type": "x/y"})
        if self.status:
            return self.send(handler, self.status, {"message": "no", "code": self.status})
        asked, method = json.loads(body or b"{}"), path.rpartition("/")[2]
        name = "/".join(
            [asked.get("ownerSlug", ""), asked.get("modelSlug", ""), "keras"]
            + [asked.get("instanceSlug") or asked.get("body", {}).get("instanceSlug") or ""]
        )
        if method == "StartBlobUpload":
            token = str(len(self.blobs))
            self.blobs[token] = asked["name"], b""
            return self.send(handler, 200, {"token": token, "createUrl": f"{self.url}/blob/{token}"})
        if method == "GetModel":
            return self.send(handler, 200, {"slug": asked["modelSlug"]})
        if method in ("CreateModelInstance", "CreateModelInstanceVersion"):
            if method == "CreateModelInstance" and name in self.models:
                return self.send(handler, 200, {"error": "it is there", "errorCode": 409})
            files = dict(self.blobs[one["token"]] for one in asked["body"]["files"])
            self.models.setdefault(name, []).append(files)
            self.made.append(asked["body"])
            return self.send(handler, 200, {})
        if name not in self.models:
            return self.send(handler, 404, {"message": "not found", "code": 404})
        versions = self.models[name]
        if method == "GetModelInstance":
            return self.send(handler, 200, {"versionNumber": len(versions)})
        number = asked["versionNumber"]
        content = versions[number - 1].get(asked["path"]) if 0 < number <= len(versions) else None
        if content is None:
            return self.send(handler, 404, {"message": "not found", "code": 404})
        token = str(len(self.blobs))
        self.blobs[token] = asked["path"], content
        return self.send(handler, 302, b"", {"Location": f"{self.url}/file/{token}/{asked['path']}"})


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hf(monkeypatch, tmp_path, no_proxy):
    """A Hugging Face of one's own, with an empty cache."""
    pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    running = HuggingFace()
    monkeypatch.setattr(constants, "ENDPOINT", running.url)
    files = running.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    hasty = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(_http, "time", hasty)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.close()


@pytest.fixture
def kaggle(monkeypatch, tmp_path, no_proxy):
    """A Kaggle of one's own, with an empty cache."""
    pytest.importorskip("kagglehub", reason="pip install -e '.[hub]'")
    from kagglesdk import kaggle_env

    running = Kaggle()
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, running.url)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.close()
