"""A few words of the WebDriver protocol over urllib, for Debian's chromium and chromedriver."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


def why_missing() -> str | None:
    """Why no browser can be driven here, or None."""
    if shutil.which("chromedriver") is None:
        return "chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return "chromium is not installed"
    return None


class Browser:
    """One session."""

    def __init__(self, root: str, session: str) -> None:
        self.root, self.session = root, session

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return _http(method, f"{self.root}/session/{self.session}{path}", body)

    def devtools(self, command: str, **params: Any) -> Any:
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def open(self, path: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        url = path.as_uri() if isinstance(path, Path) else path
        self.call("POST", "/url", {"url": "about:blank"})
        self.call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """The value that the body of a function returns; promises are awaited."""
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, expression: str, timeout_s: float = 40) -> Any:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            value = self.run(f"return {expression}")
            if value:
                return value
            time.sleep(0.05)
        raise TimeoutError(expression)

    def console(self) -> list[str]:
        """Warnings and errors since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("WARNING", "SEVERE")]  # fmt: skip

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        entries = [json.loads(e["message"])["message"] for e in self.call("POST", "/se/log", {"type": "performance"})]
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        shot = self.devtools(
            "Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._page()} if whole else {})
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _page(self) -> dict[str, float]:
        size = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        return {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}


@contextmanager
def browser() -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
    root = f"http://127.0.0.1:{port}"
    try:
        found = Browser(root, _start(root))
        try:
            yield found
        finally:
            with suppress(OSError):
                found.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(10)


def _start(root: str) -> str:
    wanted = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
              "goog:chromeOptions": {"args": list(ARGUMENTS)}}  # fmt: skip
    for _ in range(100):
        try:
            started = _http("POST", f"{root}/session", {"capabilities": {"alwaysMatch": wanted}})
            return str(started["sessionId"])
        except URLError:
            time.sleep(0.1)
    raise TimeoutError("chromedriver did not start")


def _http(method: str, url: str, body: Any = None) -> Any:
    data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise AssertionError(error.read().decode()[:2000]) from error
