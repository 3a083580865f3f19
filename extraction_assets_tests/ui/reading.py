"""What tests of the results browser ask of Chromium: pages in light and dark and of any width, keys, its console."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_core_python
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from extraction_assets_tests.ui.browser import Browser, T

AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
SECONDS = 30.0
PHONE, DESK = 390, 1440
"""Widths in CSS pixels."""

RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
  (found) => done(found.violations.filter((one) => ["serious", "critical"].includes(one.impact)).flatMap(
    (one) => one.nodes.map((node) => `${one.id} ${node.target}: ${node.failureSummary}`))),
  (error) => done([String(error)]));
"""


class Reader:
    """Pages of one ``browse`` server."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.driver, self.address = browser, browser.driver, address
        self.look()

    def look(self, *, width: int = DESK, height: int = 900, scheme: str = "light") -> None:
        """How wide the page is, and whether the reader prefers light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def open(self, path: str) -> None:
        self.driver.get(path if "://" in path else self.address + path)

    @property
    def path(self) -> str:
        """Path, query and fragment of the page shown."""
        return str(self.driver.current_url).removeprefix(self.address)

    def all(self, selector: str) -> list[WebElement]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def wait(self, what: str, condition: Callable[[], T]) -> T:
        return self.browser.wait(what, condition, SECONDS, every=0.05)

    def go(self, act: Callable[[], object]) -> None:
        """Do something that leads to another page, and wait until that is there."""
        self.driver.execute_script("window.before = true")
        act()
        gone = "return !window.before && document.readyState === 'complete'"
        self.wait("the next page", lambda: self.driver.execute_script(gone))

    def click(self, selector: str) -> None:
        """Follow a link or send a form."""
        (element, *_) = self.all(selector)
        self.go(element.click)

    def follow(self, text: str, within: str = "body") -> None:
        """Follow the first link of this text."""
        links = [link for link in self.all(f"{within} a[href]") if link.text.strip() == text]
        assert links, f"no link {text!r} in {self.texts(f'{within} a[href]')}"
        self.go(links[0].click)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def fill(self, selector: str, text: str) -> WebElement:
        """Write into a field in place of what it holds."""
        (field,) = self.all(selector)
        field.clear()
        field.send_keys(text)
        return field

    def errors(self) -> list[str]:
        """What the console has said of errors and of the policy since the last call."""
        said = self.driver.get_log("browser")
        return [one["message"] for one in said if one["level"] == "SEVERE" or "Content Security" in one["message"]]

    def sideways(self) -> int:
        """Pixels by which the page can be scrolled sideways."""
        return int(self.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def script(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def json(self, path: str) -> Any:
        """The answer of an address, fetched by the page itself."""
        fetch = "const done = arguments[1]; fetch(arguments[0]).then((answer) => answer.json()).then(done)"
        return self.driver.execute_async_script(fetch, path)

    def axe(self) -> list[str]:
        """Serious and critical violations that axe-core finds. The page's policy stays as it is."""
        self.driver.execute_script(AXE.read_text("utf-8"))
        return list(self.driver.execute_async_script(RUN_AXE))

    def picture(self, name: str) -> None:
        time.sleep(0.1)  # a focused field's caret, a scroll that has just ended
        self.browser.screenshot(name)
