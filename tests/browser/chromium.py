"""A headless Chromium that tests look at pages with, through its DevTools protocol."""

import asyncio
import base64
import re
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)

DEEP = """
function deep(root, found) {
  for (const it of root.querySelectorAll('*')) { found.push(it); if (it.shadowRoot) deep(it.shadowRoot, found); }
  return found;
}
function all(selector) { return deep(document, []).filter(it => it.matches(selector)); }
function words(root) {
  let out = '';
  for (const it of root.childNodes) {
    if (it.nodeType === 3) out += it.textContent;
    else if (it.nodeType === 1 && !['STYLE', 'SCRIPT'].includes(it.tagName))
      out += ' ' + (it.shadowRoot ? words(it.shadowRoot) : '') + words(it);
  }
  return out;
}
function text(it) { return ((it.shadowRoot ? words(it.shadowRoot) : '') + words(it)).replace(/\\s+/g, ' ').trim(); }
function texts(selector) { return all(selector).map(text).filter(Boolean); }
"""
"""JavaScript that sees into shadow trees, where TensorBoard's older tabs live."""


class Page:
    """One page of the browser."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, count(1)

    async def call(self, method, **params):
        """Send a command of the DevTools protocol and wait for its answer; events are passed over."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    async def go(self, url):
        await self.call("Page.enable")
        await self.call("Page.navigate", url="about:blank")
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression):
        """Value of a JavaScript expression, which may use the functions of :data:`DEEP`."""
        code = f"(() => {{ {DEEP} return ({expression}); }})()"
        answer = await self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression, seconds=60.0):
        """Value of an expression as soon as it is true-ish; the last one where it does not become so."""
        value = None
        for _ in range(int(seconds / 0.25)):
            value = await self.evaluate(expression)
            if value:
                break
            await asyncio.sleep(0.25)
        return value

    async def shoot(self, path):
        shot = await self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def open_page(*, width=1400, height=1600):
    """A page of a browser of its own, which ends with it."""
    import aiohttp

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={width},{height}",
            "--disable-background-networking", "--disable-component-update", "about:blank",
        ]  # fmt: skip
        with (Path(profile) / "log").open("w") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            port = None
            for _ in range(240):
                told = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", (Path(profile) / "log").read_text())
                if told:
                    port = int(told[1])
                    break
                assert browser.poll() is None, (Path(profile) / "log").read_text()
                await asyncio.sleep(0.25)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = await answer.json()
                address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            browser.terminate()
            browser.wait(20)
