"""What a person sees in a browser: MLflow's pages, the dashboard and the report of a real study.

Room: mtl/ui, mtl/tracking.
"""

import pytest

from support.browser import Browser
from support.commands import mtl_here, sets
from support.homes import furnish
from support.readers import served

TASKS = ("sst", "para", "sts")


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, browser):
    """A demo study of two trials, served; the report of it."""
    folder = tmp_path_factory.mktemp("pages")
    furnish(folder / "home")
    short = sets("train.epochs=2", "train.steps_per_epoch=10", "train.eval_limit=60")
    for command in (
        ["run", "lora_sweep", "--trials", "2", "--jobs", "1", *short],
        ["report", "lora_sweep", "-o", str(folder / "report.html")],
    ):
        done = mtl_here(folder, "study", *command, MTL_HOME=str(folder / "home"))
        assert done.code == 0, done
    with served(folder / "home") as (said, mlflow, dashboard):
        browser.without_assistant(mlflow)
        yield Pages(mlflow, dashboard, folder / "report.html", said)


class Pages:
    def __init__(self, mlflow, dashboard, report, said):
        self.mlflow, self.dashboard, self.report = mlflow, dashboard, report
        (self.runs,) = [word for word in said.split() if "viewStateShareKey" in word]

    def run(self, browser, trial: str) -> str:
        """Find a trial's run in the list of runs, as a person does; return its address."""
        browser.open(self.runs)
        browser.until_text(trial)
        link = browser.driver.find_element("partial link text", trial)
        return link.get_attribute("href")


def test_runs_are_listed_under_their_study_best_first(browser, pages):
    browser.open(pages.runs)
    browser.until_text("study lora_sweep", "trial 0 · r=0 α=1", "trial 1 · r=4 α=8")
    # Columns: scores, size, and what was searched; the sidebar is that of model training.
    browser.until_text("final/score", "final/sst_accuracy", "lora.rank", "parameters/trainable")
    assert "Prompts" not in browser.text


def test_a_run_has_charts_and_system_metrics(browser, pages):
    run = pages.run(browser, "trial 1")
    browser.open(f"{run}/model-metrics")
    browser.until_text("(dev/score)")  # what is further down is drawn when one comes there
    browser.until(lambda b: b.count(".js-plotly-plot .scatterlayer .trace") > 0, "a curve")
    browser.open(f"{run}/system-metrics")
    browser.until_text("process_memory_megabytes")
    browser.open(run)
    browser.until_text("lora.rank", "dev/score", "final/sts_rmse", "sst/train")


def test_a_run_shows_its_confusion_matrix_and_mistakes(browser, pages):
    run = pages.run(browser, "trial 1")
    browser.open(f"{run}/artifacts/confusion_matrix/sst.html")
    browser.until(lambda b: b.count("iframe") > 0, "the artifact")
    browser.driver.switch_to.frame(browser.driver.find_element("css selector", "iframe"))
    browser.until_text("Sentiment (SST)", "very negative", "precision", "recall")
    browser.driver.switch_to.default_content()
    browser.open(f"{run}/artifacts/predictions/worst-sst.csv")
    browser.until_text("sentence", "probability", "error")


def test_the_study_s_run_tells_the_study(browser, pages):
    run = pages.run(browser, "study lora_sweep")
    browser.open(run)
    browser.until_text("Searched:", "lora.rank", "Best:", "SST accuracy")
    browser.open(f"{run}/artifacts/study.html")
    browser.until(lambda b: b.count("iframe") > 0, "the artifact")
    browser.driver.switch_to.frame(browser.driver.find_element("css selector", "iframe"))
    browser.until(lambda b: b.count(".js-plotly-plot svg.main-svg") > 0, "a figure")
    browser.driver.switch_to.default_content()


def test_the_dashboard_shows_study_values_and_pictures(browser, pages):
    browser.open(f"{pages.dashboard}/dashboard")
    browser.until_text("lora_sweep")
    browser.open(f"{pages.dashboard}/dashboard/studies/1")
    browser.until_text("dev score", "Intermediate values")
    browser.open(f"{pages.dashboard}/dashboard/studies/1/trials?numbers=1")
    browser.until_text("trainable_parameters", "Its run in MLflow")
    loaded = (
        "return [...document.images].filter(i => i.src.includes('artifacts') && "
        "i.complete && i.naturalWidth > 100).length"
    )
    browser.until(lambda b: b.driver.execute_script(loaded) == len(TASKS), "three pictures")
    # Nothing pushes the page wider than the screen.
    assert browser.driver.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )


def test_the_report_draws_its_figures_without_a_network(browser, pages):
    browser.errors()
    browser.open(pages.report.as_uri())
    browser.until_text("Leaderboard", "Beside the paper")
    wanted = browser.count(".js-plotly-plot")
    assert wanted >= 4
    drawn = (
        "return [...document.querySelectorAll('.js-plotly-plot')].filter("
        "p => p.querySelector('.trace, .parcoords, .point')).length"
    )
    browser.until(lambda b: b.driver.execute_script(drawn) == wanted, "every figure")
    requests = "return performance.getEntriesByType('resource').map(r => r.name)"
    assert browser.driver.execute_script(requests) == []
    assert browser.errors() == []
    assert browser.driver.execute_script("return document.body.scrollWidth <= window.innerWidth")
