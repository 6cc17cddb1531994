"""Make the pictures of the documentation: `make screenshots`. Not a test.

A demo study is run in a folder of its own, served, and looked at in headless Chromium; what the
terminal shows is drawn by rich. Usage: python tests/screenshots.py FOLDER [HOME]; with HOME, the
lora_sweep recorded there is shown.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.browser import Browser
from support.readers import served
from support.study_runs import MTL

_TRAINING = "?workflowType=machine_learning"  # MLflow's sidebar
SETTLED = 4  # seconds: pages are drawn by then


def main(folder: Path, home: Path | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mtl-screenshots-") as work:
        home = home or Path(work) / "home"
        env = {**os.environ, "MTL_HOME": str(home)}
        subprocess.run([MTL, "study", "run", "lora_sweep"], env=env, check=True)
        report = Path(work) / "report.html"
        subprocess.run([MTL, "study", "report", "lora_sweep", "-o", report], env=env, check=True)
        best = json.loads(subprocess.check_output(
            [MTL, "study", "best", "lora_sweep", "--json"], env=env))["best"]  # fmt: skip
        browser = Browser(width=1440, height=1000)
        try:
            with served(home) as (said, mlflow, dashboard):
                browser.without_assistant(mlflow)
                runs = next(w for w in said.split() if "viewStateShareKey" in w)
                run = runs.partition("?")[0] + f"/{best['run_id']}"
                number = best["number"]
                for name, address, words in (
                    ("mlflow-runs", runs, "study lora_sweep"),
                    ("mlflow-confusion",
                     f"{run}/artifacts/confusion_matrix/sst.html{_TRAINING}", "sst.html"),
                    ("dashboard-trial",
                     f"{dashboard}/dashboard/studies/1/trials?numbers={number}", "Artifacts"),
                ):  # fmt: skip
                    shoot(browser, address, words, folder / f"{name}.png")
            shoot(browser, report.as_uri(), "Leaderboard", folder / "report.png")
            browser.driver.execute_script("document.getElementById('figures').scrollIntoView()")
            time.sleep(1)
            browser.driver.save_screenshot(str(folder / "report-figures.png"))
        finally:
            browser.close()


def shoot(browser: Browser, address: str, words: str, picture: Path) -> None:
    """Open a page, wait until it says `words` and has settled, and keep a picture of it."""
    browser.driver.set_window_size(1440, 1500 if picture.stem == "dashboard-trial" else 1000)
    browser.open(address)
    browser.until_text(words)
    time.sleep(SETTLED)
    browser.driver.save_screenshot(str(picture))
    print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
