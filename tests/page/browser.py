"""Chromium by its own protocol: one page, what it asked for, and what it complained of."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile

from websockets.asyncio.client import connect

PATIENCE_S = 30


class Browser:
    """`async with Browser() as page:` is one page of a fresh profile."""

    async def __aenter__(self):
        self.profile = tempfile.mkdtemp(prefix="splitway-page-")
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--disable-background-networking",
             "--remote-debugging-port=0", f"--user-data-dir={self.profile}", "about:blank"],
            stderr=subprocess.PIPE, text=True)
        url = await asyncio.get_running_loop().run_in_executor(None, self.devtools)
        # Never drained in full otherwise; what it says is not needed.
        asyncio.get_running_loop().run_in_executor(None, self.process.stderr.read)
        self.socket = await connect(url, max_size=None)
        self.answers, self.number = {}, 0
        self.requests, self.complaints = [], []
        self.reader = asyncio.create_task(self.read())
        target = await self.send("Target.createTarget", {"url": "about:blank"}, session=None)
        attached = await self.send("Target.attachToTarget",
                                   {"targetId": target["targetId"], "flatten": True}, session=None)
        self.session = attached["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            await self.send(f"{domain}.enable")
        return self

    async def __aexit__(self, *_):
        await self.socket.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def devtools(self):
        for line in self.process.stderr:
            if "DevTools listening on " in line:
                return line.split("DevTools listening on ")[1].strip()
        raise RuntimeError("chromium ended before it listened")

    async def read(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
                continue
            given = message["params"]
            match message["method"]:
                case "Network.requestWillBeSent":
                    self.requests.append(given["request"]["url"])
                case "Runtime.exceptionThrown":
                    details = given["exceptionDetails"]
                    said = details.get("exception", {}).get("description", details["text"])
                    self.complaints.append(said)
                case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning"):
                    self.complaints.append(str(given["args"]))
                case "Log.entryAdded" if given["entry"]["level"] == "error":
                    entry = given["entry"]
                    self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    async def send(self, method, params=None, session=""):
        self.number += 1
        answer = self.answers[self.number] = asyncio.get_running_loop().create_future()
        message = {"id": self.number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        answer = await asyncio.wait_for(answer, PATIENCE_S)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def open(self, url):
        await self.send("Page.navigate", {"url": url})

    async def do(self, script):
        """The value of a script, which may be a promise."""
        result = await self.send("Runtime.evaluate", {
            "expression": script, "awaitPromise": True, "returnByValue": True})
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    async def until(self, condition):
        """Waits until a condition of the page holds; returns its value."""
        try:
            return await asyncio.wait_for(self.until_unbounded(condition), PATIENCE_S)
        except TimeoutError:
            text = await self.do("document.body.innerText")
            raise AssertionError(f"never: {condition}\n{text}\n{self.complaints}") from None

    async def until_unbounded(self, condition):
        # The page looks itself at every frame; a navigation in between begins anew.
        script = f"""new Promise((done) => {{
            const look = () => {{
                let found = null;
                try {{ found = ({condition}); }} catch {{}}
                if (found) done(found); else requestAnimationFrame(look);
            }};
            look();
        }})"""
        while True:
            try:
                return await self.do(script)
            except RuntimeError as error:
                if "navigat" not in str(error) and "context" not in str(error):
                    raise

    async def look(self, width, height=900, dark=False):
        """Sets the size of the window and the colours that the reader prefers."""
        await self.send("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
        value = "dark" if dark else "light"
        await self.send("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": value}]})
        await self.do("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def key(self, key, code=None):
        """A key of the keyboard."""
        code = code or key
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        number = {"Enter": 13, "Tab": 9, "Escape": 27, "Space": 32}[key]
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        await self.send("Input.dispatchKeyEvent", {"type": "keyDown", "text": text, **event})
        await self.send("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    async def write(self, text):
        await self.send("Input.insertText", {"text": text})

    async def shot(self, path):
        """A picture of the whole page."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = await self.send("Page.captureScreenshot",
                                  {"clip": clip, "captureBeyondViewport": True})
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
