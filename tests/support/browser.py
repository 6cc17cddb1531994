"""A real browser over the real pages: a small study, both servers, headless Chromium."""

import shutil

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 60  # seconds for a page on a busy machine; a page that is there is not waited for
_ASSISTANT = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"  # a panel over half of the page


class Browser:
    """Chromium without a screen. ``driver`` is Selenium's."""

    def __init__(self, width: int = 1500, height: int = 1100) -> None:
        paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
        if None in paths:
            pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
        options = webdriver.ChromeOptions()
        options.binary_location = paths[0]
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--hide-scrollbars", f"--window-size={width},{height}"):  # fmt: skip
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(paths[1]))

    def open(self, address: str) -> None:
        """Go to a page; from one part of a page to another it is loaded anew."""
        self.driver.get("about:blank")
        self.driver.get(address)

    def without_assistant(self, mlflow: str) -> None:
        """Be somebody who has closed MLflow's assistant before."""
        self.open(f"{mlflow}/health")
        self.driver.execute_script(f"localStorage.setItem('{_ASSISTANT}', 'true')")

    @property
    def text(self) -> str:
        return self.driver.execute_script("return document.body ? document.body.innerText : ''")

    def until(self, condition, what: str):
        """Wait until a condition of this browser holds; return what it returns."""
        waiting = WebDriverWait(self.driver, PATIENCE)
        try:
            return waiting.until(lambda _: condition(self))
        except TimeoutException:
            where = f"{self.driver.current_url}\n{self.text[:2000]}"
            raise AssertionError(f"{what}: never came to {where}") from None

    def until_text(self, *words: str) -> None:
        self.until(lambda b: all(word in b.text for word in words), f"{words}")

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def errors(self) -> list[str]:
        """What the page complained of since this was asked last."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def close(self) -> None:
        self.driver.quit()
