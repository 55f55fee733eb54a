"""Chromium without a window, told what to do over its DevTools protocol on two pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser():
    """The program's path, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


class Chromium:
    """A browser with one page; it is gone at the end of a `with` block.

    Args:
        profile: folder for its files.
        flags: more of its options.
    """

    def __init__(self, profile, *flags):
        program = browser()
        assert program is not None
        read, self.commands = os.pipe()
        self.answers, write = os.pipe()
        own = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        own += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "--window-size=1100,900", *flags]
        # it reads the descriptor 3 and writes 4
        shell = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        command = ["bash", "-c", shell, program, *own, "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(read, write), stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        self.buffer, self.id, self.events = b"", 0, []
        pages = self._say("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in pages if one["type"] == "page")
        self.session = None
        self.session = self._say("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._say(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)

    def open(self, url):
        self.events.clear()
        self._say("Page.navigate", url=url)

    def value(self, expression):
        """What a JavaScript expression is in the page."""
        answer = self._say("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression, seconds=120):
        """Until an expression is true; raises a TimeoutError if it does not become so."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}: {self.value('document.body.innerText')}")
            time.sleep(0.1)

    def addresses(self):
        """Of all that the page has asked for."""
        return [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]

    def errors(self):
        """What the page and the browser complained about."""
        entries = [one["params"]["entry"]["text"] for one in self.events if one["method"] == "Log.entryAdded"]
        thrown = [one["params"] for one in self.events if one["method"] == "Runtime.exceptionThrown"]
        return entries + [one["exceptionDetails"]["text"] for one in thrown]

    def screenshot(self):
        """The bytes of a PNG."""
        return base64.b64decode(self._say("Page.captureScreenshot")["data"])

    def give_file(self, selector, path):
        """Chooses a file in the page's input."""
        root = self._say("DOM.getDocument")["root"]["nodeId"]
        node = self._say("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._say("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def _say(self, method, **params):
        self.id += 1
        message = {"id": self.id, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.id:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def _read(self, seconds=600):
        while b"\0" not in self.buffer:
            if not select.select([self.answers], [], [], seconds)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.answers, 2**20)
            assert part, "Chromium has ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)
