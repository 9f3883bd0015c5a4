"""A page in headless Chromium, controlled by the DevTools protocol over a pipe: only the browser must be installed."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# The browser uses descriptors 3 and 4: moves ours there, whatever their numbers, and becomes the browser.
ON_3_AND_4 = """import fcntl, os, sys
ends = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])"""


class Page:
    def __init__(self, to, back):
        self.to, self.back, self.sent, self.session = to, back, 0, None

    def call(self, method, **params):
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            text = b""
            while not text.endswith(b"\0"):
                got = self.back.read(1)
                if not got:
                    raise ConnectionError(f"the browser went away during {method}")
                text += got
            answer = json.loads(text[:-1])
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def value(self, script):
        """The awaited value of a script's expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector):
        """Clicks the center of the element that the selector finds."""
        self.value(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({selector!r}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self):
        return self.call("Page.captureScreenshot")["data"]


@contextmanager
def opened(path, profile):
    """The page at a path, 1200 pixels wide."""
    read_in, write_in = os.pipe()
    read_out, write_out = os.pipe()
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
               "--window-size=1200,1000", f"--user-data-dir={profile}"]
    run = subprocess.Popen([sys.executable, "-c", ON_3_AND_4, str(read_in), str(write_out), *command], pass_fds=(read_in, write_out),
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(read_in)
    os.close(write_out)
    with os.fdopen(write_in, "wb") as to, os.fdopen(read_out, "rb") as back:
        try:
            page = Page(to, back)
            target = page.call("Target.createTarget", url=f"file://{path}")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            while not page.value("location.protocol === 'file:' && document.readyState === 'complete'"):
                time.sleep(0.02)
            yield page
        finally:
            run.terminate()
            run.wait(20)
