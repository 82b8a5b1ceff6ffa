"""A headless Chromium, and everything that a page says and asks for while it is open in it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1",
    "--disable-dev-shm-usage",
)  # fmt: skip


class Browser:
    """One open page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, size: tuple[int, int] = (1360, 900), dark: bool = False) -> None:
        """Load a report from disk and wait until its figures are drawn."""
        self.visit(page, size=size, dark=dark)
        self.wait("return document.documentElement.dataset.drawn")

    def visit(self, page: Path, *, size: tuple[int, int] = (1360, 900), dark: bool = False) -> None:
        """Load any page from disk, and forget what the one before it said and asked for."""
        self.resize(size)
        self.media(dark=dark)
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(page.as_uri())

    def before_each_page(self, script: str) -> None:
        """Run a script in every page that is opened from now on, before its own."""
        self._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def wait(self, script: str) -> Any:
        """What a script returns, once that is something."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 60).until(lambda _: self.run(script))

    def resize(self, size: tuple[int, int]) -> None:
        """The window's size, phones included."""
        self._devtools("Emulation.setDeviceMetricsOverride",
                       {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False})  # fmt: skip

    def media(self, *, dark: bool = False, medium: str = "") -> None:
        """The colour scheme that the reader prefers, and screen or print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"media": medium, "features": [scheme]})

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What stands in the console: errors and warnings, a script's or the browser's own."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened, those inside the page left out."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]

    def screenshot(self, path: Path) -> None:
        """The whole page, top to bottom."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed on A4."""
        printed = self._devtools("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True,
                                                     "preferCSSPageSize": True})  # fmt: skip
        path.write_bytes(base64.b64decode(printed["data"]))

    def _devtools(self, command: str, given: dict[str, Any]) -> Any:
        return self.driver.execute_cdp_cmd(command, given)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a new profile; the test is skipped, saying so, where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no headless browser: install chromium and chromium-driver, as .ci/run does")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
