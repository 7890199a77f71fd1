"""Every dashboard as people see it: in a browser, light and dark, on a small screen and a large one.

The pictures are kept, in build/screens; a test cannot say whether somebody on call would want them on the wall.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import dashboard_queries
import pytest
from apis import Prometheus
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from waiting import eventually

from dashboards import reading

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "build" / "screens"
DASHBOARDS = {dashboard["uid"]: dashboard for dashboard in reading.dashboards()}
SCREENS = {"light-1280": (1280, "light"), "dark-1920": (1920, "dark")}
WAIT_SECONDS = 60
# A table is drawn a moment after its data has come.
DRAWN_SECONDS = 2
# What is on the page for each panel (names as Grafana's own tests have them, packages/grafana-e2e-selectors).
STATE = """
const found = {};
for (const panel of document.querySelectorAll('section[data-testid^="data-testid Panel header "]')) {
    const content = panel.querySelector('[data-testid="data-testid panel content"]');
    found[panel.dataset.testid.replace('data-testid Panel header ', '')] = {
        loading: !content?.childElementCount || !!panel.querySelector('[aria-label="Panel loading bar"]'),
        failed: !!panel.querySelector('[data-testid="data-testid Panel status error"]'),
        text: content?.innerText.trim() ?? '',
        rows: content?.querySelectorAll('[role="row"]').length ?? 0,
    };
}
return found;
"""
NO_DATA = "No data"
"""What Grafana writes into a panel that has none, where the panel has no words of its own for it."""


class Screen:
    """A browser window, signed in.

    Args:
        url: Grafana's, without a trailing slash.
        width: in pixels.
    """

    def __init__(self, url: str, width: int) -> None:
        self.url = url
        self.width = width
        options = webdriver.ChromeOptions()
        options.binary_location = self.program("chromium")
        for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            # Chromium's own sandbox refuses to run as root.
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
        service = webdriver.ChromeService(self.program("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)

    @staticmethod
    def program(name: str) -> str:
        """Return a program's path; a missing one fails the test."""
        path = shutil.which(name)
        if path is None:
            pytest.fail(
                f"there is no {name}: apt-get install chromium chromium-driver (molecule/grafana/run.sh does it)"
            )
        return path

    def sign_in(self, login: str, password: str) -> None:
        """Fill in the form, as people do."""
        self.driver.set_window_size(self.width, 900)
        self.driver.get(f"{self.url}/login")
        wait = WebDriverWait(self.driver, WAIT_SECONDS)
        for name, text in (("Username", login), ("Password", password)):
            wait.until(
                lambda page, name=name: page.find_element(By.CSS_SELECTOR, f'[data-testid$="{name} input field"]')
            )
            self.driver.find_element(By.CSS_SELECTOR, f'[data-testid$="{name} input field"]').send_keys(text)
        self.driver.find_element(By.CSS_SELECTOR, '[data-testid$="Login button"]').click()
        wait.until(lambda page: "/login" not in page.current_url)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what each panel shows, by its title."""
        found: dict[str, dict[str, Any]] = self.driver.execute_script(STATE)
        return found

    def show(self, uid: str, theme: str, titles: Collection[str]) -> None:
        """Open a dashboard and wait until all of its panels have loaded."""
        # Grafana loads what is on the screen: this one is as high as the page, so that everything is.
        self.driver.set_window_size(self.width, 900)
        self.driver.get(f"{self.url}/d/{uid}?theme={theme}&from=now-15m&to=now&refresh=")
        WebDriverWait(self.driver, WAIT_SECONDS).until(lambda _: self.state())
        height = self.driver.execute_script("return Math.max(document.documentElement.scrollHeight, 900)")
        self.driver.set_window_size(self.width, height + 200)
        eventually(
            self.state,
            lambda found: found.keys() == set(titles) and not any(one["loading"] for one in found.values()),
            within=WAIT_SECONDS,
            what=f"{uid} has loaded",
        )

    def messages(self) -> list[str]:
        """Return what the browser has complained about since the last call."""
        return [str(one["message"]) for one in self.driver.get_log("browser")]


@pytest.fixture(scope="module", params=SCREENS)
def screen(request: pytest.FixtureRequest, url: str) -> Iterator[tuple[str, str, Screen]]:
    """The screen's name, its theme, and a Viewer's window on it."""
    width, theme = SCREENS[request.param]
    found = Screen(url, width)
    try:
        found.sign_in("victor", "molecule-victor-password")
        yield request.param, theme, found
    finally:
        found.driver.quit()


def is_empty(panel: dict[str, Any], shown: dict[str, Any]) -> bool:
    """Say whether a panel shows no data: a table its head alone, any other the words for it."""
    if panel["type"] == "table":
        return int(shown["rows"]) < 2
    return shown["text"] in (NO_DATA, panel["fieldConfig"]["defaults"].get("noValue", NO_DATA))


def is_excused(uid: str, title: str, jobs: Collection[str]) -> bool:
    """Say whether a panel may be empty: each of its queries may find nothing."""
    queries = [one for one in reading.queries(DASHBOARDS[uid]) if one.panel == title]
    return all(dashboard_queries.reason(one, jobs) for one in queries)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_shows_all_of_its_panels(screen: tuple[str, str, Screen], prometheus: Prometheus, uid: str) -> None:
    name, theme, window = screen
    panels = {panel["title"]: panel for panel in reading.panels(DASHBOARDS[uid]) if panel["type"] != "row"}
    jobs = dashboard_queries.jobs_of(prometheus)

    def empty() -> list[str]:
        return [title for title, shown in window.state().items() if is_empty(panels[title], shown)]

    def wrong() -> list[str]:
        # Each time anew: who opens it in the second after a scrape that failed sees that nothing was scraped.
        window.show(uid, theme, panels)
        time.sleep(DRAWN_SECONDS)
        failed = [f"{title}: an error" for title, shown in window.state().items() if shown["failed"]]
        bare = [f"{title}: no data" for title in empty() if not is_excused(uid, title, jobs)]
        return failed + bare + window.messages()

    try:
        eventually(wrong, lambda found: found == [], within=WAIT_SECONDS, what=f"every panel of {uid} shows data")
    finally:
        PICTURES.mkdir(parents=True, exist_ok=True)
        picture = PICTURES / f"{uid}-{name}.png"
        window.driver.save_screenshot(str(picture))
    print(f"\n{picture.relative_to(ROOT)}: {len(panels)} panels, without data: {', '.join(empty()) or 'none'}")
