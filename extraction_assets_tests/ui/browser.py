"""A headless Chromium on Dagster's UI: waits that survive a slow machine, screenshots always."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

PAGE_SECONDS = 120.0
"""Patience with one page; a loaded machine with two cores needs tens of seconds for the first."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

T = TypeVar("T")


def find_programs() -> tuple[str, str]:
    """Paths of Chromium and its driver. RuntimeError says what to install where one is missing."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not browser or not driver:
        missing = " and ".join(name for name, path in (("chromium", browser), ("chromedriver", driver)) if not path)
        raise RuntimeError(
            f"the UI tests need {missing}: on Debian `apt-get install chromium chromium-driver`, elsewhere name the "
            "programs in the environment variables CHROMIUM and CHROMEDRIVER"
        )
    return browser, driver


class Browser:
    """One page of the UI at ``address``; screenshots go to ``folder``."""

    def __init__(self, driver: webdriver.Chrome, address: str, folder: Path) -> None:
        self.driver, self.address, self._folder = driver, address, folder

    def open(self, path: str, *, width: int = 1600, height: int = 1000) -> None:
        """Open a path of the UI, or a whole address, in a window of this size."""
        self.driver.set_window_size(width, height)
        self.driver.get(path if "://" in path else self.address + path)

    def screenshot(self, name: str) -> None:
        """Save what the window shows now as NAME.png."""
        self.driver.save_screenshot(str(self._folder / f"{name}.png"))

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def wait(self, what: str, condition: Callable[[], T], seconds: float = PAGE_SECONDS, every: float = 0.5) -> T:
        """The condition's value once it is true; an AssertionError with the page's text if it never is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(WebDriverException):  # stale, not there yet, covered by something: look again
                value = condition()
                if value:
                    return value
            time.sleep(every)
        self.screenshot("timeout")
        raise AssertionError(f"waited {seconds:.0f} s for {what}; the page says:\n{self.text[:4000]}")

    def wait_for_text(self, *texts: str, seconds: float = PAGE_SECONDS) -> str:
        """The page's text, once it holds all of ``texts``."""
        return self.wait(f"the texts {texts}", lambda: self._text_with(texts), seconds)

    def _text_with(self, texts: tuple[str, ...]) -> str:
        text = self.text
        return text if all(wanted in text for wanted in texts) else ""

    def click(self, label: str) -> None:
        """Click the last button or link whose text begins so: dialogs come last in the page."""
        self._click(f"(//button|//a)[starts-with(normalize-space(.), {label!r})]", label)

    def unfold(self, heading: str) -> None:
        """Click a heading that folds what stands under it."""
        self._click(f"//*[normalize-space(text())={heading!r}]", heading)

    def _click(self, xpath: str, label: str) -> None:
        def clicked() -> bool:
            found = [element for element in self.driver.find_elements(By.XPATH, xpath) if element.is_enabled()]
            if found:
                found[-1].click()
            return bool(found)

        self.wait(f"{label!r}, to click it", clicked)

    @property
    def editor(self) -> str:
        """What stands in the last YAML editor of the page."""
        return str(self._in_editor("return editor.getValue()"))

    @editor.setter
    def editor(self, text: str) -> None:
        self.wait("an editor", lambda: self.driver.find_elements(By.CSS_SELECTOR, ".CodeMirror"))
        self._in_editor("editor.setValue(arguments[0])", text)

    def put_cursor(self, line: int) -> None:
        """Put the editor's cursor at the end of a line, counted from 0."""
        self._in_editor("editor.focus(); editor.setCursor({line: arguments[0], ch: 999})", line)

    def _in_editor(self, script: str, *arguments: object) -> object:
        find = "const editor = [...document.querySelectorAll('.CodeMirror')].pop().CodeMirror; "
        return self.driver.execute_script(find + script, *arguments)

    def pictures(self) -> list[WebElement]:
        """The pictures in Markdown that Chromium has drawn."""
        images = self.driver.find_elements(By.CSS_SELECTOR, ".dagster-markdown img")
        return [image for image in images if self.driver.execute_script("return arguments[0].naturalWidth", image)]


@contextlib.contextmanager
def chromium(address: str, folder: Path, profile: Path) -> Iterator[Browser]:
    """A browser of its own, ended with the block."""
    program, driver_program = find_programs()
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    folder.mkdir(parents=True, exist_ok=True)
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    driver.set_page_load_timeout(PAGE_SECONDS)
    try:
        yield Browser(driver, address, folder)
    finally:
        driver.quit()
