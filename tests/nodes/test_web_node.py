# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, before a real cell: what is drawn, and what its buttons do."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from bag_processes import Observer, Processes, wait_until
from geometry_msgs.msg import Point
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from twinloop.dds import take_domain
from twinloop.learning.model_file import Candidate, load_model
from twinloop.learning.registry import Registry
from twinloop.nodes import qos
from twinloop.nodes.planner import shipped_model

from twinloop import contract as contracts
from twinloop_interfaces.msg import (
    ControlStatus,
    GuardStatus,
    PilotInput,
    TrackedBall,
    TrackedBallArray,
)

CHROMIUM = os.environ.get("TWINLOOP_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser: on Debian, apt install chromium"
)
# Kept, so that a person can look at what a test saw.
PICTURES = Path(__file__).resolve().parents[2] / "runs" / "web-tests"
PATIENCE_MS = 90_000
FLAGS = (
    *("--headless=new", "--no-sandbox", "--no-first-run", "--use-gl=angle"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Cell:
    """A cell without a planner, whose balls a test moves, and its page."""

    def __init__(self, observer: Observer, registry: Registry) -> None:
        self.observer, self.registry = observer, registry
        self.guard = GuardStatus()
        observer.node.create_subscription(
            GuardStatus, "guard_status", self._take_guard, qos.latched()
        )
        self._balls = observer.node.create_publisher(TrackedBallArray, "balls", qos.SENSOR)
        self._ends = threading.Event()
        self._mover = threading.Thread(target=self._move)
        self._mover.start()

    @property
    def address(self) -> str:
        return self.observer.values("/web")["address"]

    def close(self) -> None:
        self._ends.set()
        self._mover.join()

    def _take_guard(self, status: GuardStatus) -> None:
        self.guard = status

    def _move(self) -> None:
        angle = 0.0
        while not self._ends.wait(1 / 30):
            angle += 0.1
            message = TrackedBallArray()
            message.header.frame_id = "rh_palm"
            for ball in range(2):
                at = angle + math.pi * ball
                place = Point(x=0.03 * math.cos(at), y=-0.045, z=0.09 + 0.03 * math.sin(at))
                message.balls.append(TrackedBall(id=ball, position=place))
            self._balls.publish(message)


def filled(folder: Path) -> Registry:
    """A registry in which v0002 took the place of v0001."""
    contract = contracts.load("baoding")
    registry = Registry(folder, contract)
    registry.seed_from(shipped_model("baoding"))
    loaded = load_model(shipped_model("baoding"), contract)
    about = loaded.manifest
    candidate = Candidate(loaded.model, contract, about.lineage, dict(about.metrics))
    registry.promote(registry.add(candidate), "for a test")
    return registry


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp("web")
    registry = filled(folder / "registry")
    common = {"record_dir": folder / "bags", "registry": folder / "registry"}
    with Processes(take_domain()) as processes, Observer(processes.domain) as observer:
        processes.node("twinloop_sim.nodes.twin", tracker=False, emergency_stop_timeout_s=10.0)
        processes.node("twinloop.nodes.learner", model="none", **common)
        processes.node("twinloop.nodes.episode")
        processes.node(
            "twinloop.nodes.web",
            control=True,
            teleop=True,
            port=8300,
            use_sim_time=True,
            **common,
        )
        processes.node(
            "twinloop.nodes.supervisor",
            nodes="[twin, learner, episode]",
            heartbeat_timeout_s=30.0,
            kill_after_s=60.0,
        )
        for name in ("/twin", "/learner", "/episode", "/web", "/supervisor"):
            wait_until(lambda name=name: observer.values(name).get("state") == "active", 90.0)
        running = Cell(observer, registry)
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        yield launched(driver)


def launched(driver: Playwright) -> Browser:
    return driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])


@pytest.fixture(scope="module")
def page(cell: Cell, browser: Browser) -> Iterator[Page]:
    page = opened(cell, browser)
    yield page
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "end.png", timeout=PATIENCE_MS)


def opened(cell: Cell, browser: Browser) -> Page:
    """Open a window of the page and wait until it shows the cell."""
    # Small: pixels are drawn by the processor here.
    page = browser.new_page(viewport={"width": 760, "height": 560})
    page.set_default_timeout(PATIENCE_MS)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("websocket", lambda socket: page.asked.append(socket.url))
    page.goto(cell.address)
    expect(page.locator("canvas").first).to_be_visible(timeout=PATIENCE_MS)
    said(page, "emergency stop released")
    return page


def said(page: Page, text: str) -> None:
    """Wait until the lines at the top of the page say something."""
    expect(page.locator("[data-twinloop=state]")).to_contain_text(text, timeout=PATIENCE_MS)


def pressed(page: Page, label: str) -> None:
    page.get_by_role("button", name=label, exact=True).click()


def opened_tab(page: Page, label: str) -> None:
    page.get_by_role("tab", name=label, exact=True).click()


def picture(page: Page, name: str) -> np.ndarray:
    """Take a screenshot, keep it, and return the scene's pixels, without what is beside it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path, timeout=PATIENCE_MS)
    return cv2.imread(str(path))[:, :360, ::-1].astype(np.int16)


def test_the_scene_is_drawn_and_moves_with_the_balls(cell: Cell, page: Page) -> None:
    for _ in range(60):  # until balls are drawn: their colours are on the page alone
        first = picture(page, "scene")
        orange = (first[..., 0] - first[..., 2] > 90).sum()
        if orange > 50:
            break
        page.wait_for_timeout(500)
    assert orange > 50
    changed = 0
    for index in range(20):
        page.wait_for_timeout(300)
        second = picture(page, f"scene-{index % 2}")
        changed = int((np.abs(second - first).max(axis=-1) > 40).sum())
        if changed > 200:
            break
    assert changed > 200


def test_the_emergency_stop_works_and_is_shown_by_every_window(
    cell: Cell, page: Page, browser: Browser
) -> None:
    wait_until(lambda: cell.guard.state == GuardStatus.HOLDING)
    pressed(page, "EMERGENCY STOP")
    wait_until(lambda: cell.guard.state == GuardStatus.EMERGENCY_STOP)
    said(page, "emergency stop PRESSED")
    said(page, "guard emergency stop")
    picture(page, "stopped")
    page.reload()
    said(page, "emergency stop PRESSED")
    pressed(page, "Re-arm")
    said(page, "re-arm refused")
    pressed(page, "Release emergency stop")
    said(page, "emergency stop released")
    assert cell.guard.state == GuardStatus.EMERGENCY_STOP
    pressed(page, "Re-arm")
    wait_until(lambda: cell.guard.state == GuardStatus.HOLDING)
    said(page, "guard holding")
    second = opened(cell, browser)
    said(second, "re-arm:")
    second.close()


def test_a_model_is_rolled_back(cell: Cell, page: Page) -> None:
    assert cell.registry.current() == "v0002"
    page.get_by_role("tab", name="Models").click()
    expect(page.get_by_role("cell", name="v0002")).to_be_visible(timeout=PATIENCE_MS)
    pressed(page, "Roll back to the model before")
    said(page, "roll-back: v0001 runs again")
    assert cell.registry.current() == "v0001"
    pressed(page, "Roll back to the model before")
    said(page, "roll-back refused")
    picture(page, "models")


def test_a_pause_hands_the_joints_to_the_sliders(cell: Cell, page: Page) -> None:
    page.get_by_role("tab", name="Cell").click()
    pressed(page, "Pause")
    said(page, "paused")
    page.get_by_text("Joints [rad], while paused").click()
    label = page.get_by_text("rh_MFJ3", exact=True)
    box = label.locator("xpath=following::input[not(@type='hidden')][1]")
    box.fill("0.4")
    box.press("Enter")
    wait_until(lambda: cell.guard.source == "/web" and cell.guard.accepted > 0)


def test_nothing_leaves_this_machine(cell: Cell, page: Page) -> None:
    port = cell.address.rpartition(":")[2]
    own = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}", "data:", "blob:http://127.0.0.1")
    assert len(page.asked) > 2
    assert [url for url in page.asked if not url.startswith(own)] == []
    process = psutil.Process(int(cell.observer.values("/web")["pid"]))
    listening = {
        one.laddr for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", int(port))}


def test_a_button_of_a_pilot_moves_while_it_is_held(cell: Cell, page: Page) -> None:
    heard: list[PilotInput] = []
    node = cell.observer.node
    node.create_subscription(PilotInput, "pilot_input", heard.append, qos.SENSOR)
    opened_tab(page, "Steer")
    button = page.get_by_role("button", name="close +", exact=True)
    button.scroll_into_view_if_needed()
    button.hover()
    page.mouse.down()
    wait_until(lambda: any(one.dead_man and list(one.names) == ["hand/close"] for one in heard))
    assert not heard[0].dead_man  # a press counts after a release alone
    page.mouse.up()
    wait_until(lambda: not heard[-1].dead_man)
    assert {one.source for one in heard} == {"page"}
    picture(page, "steer")


def test_alpha_is_a_slider_of_the_page(cell: Cell, page: Page) -> None:
    asked: list[float] = []

    def answer(request: SetParameters.Request, response: SetParameters.Response):
        asked.extend(one.value.double_value for one in request.parameters if one.name == "alpha")
        response.results = [SetParametersResult(successful=True) for _ in request.parameters]
        return response

    node = cell.observer.node
    node.create_service(SetParameters, "planner/set_parameters", answer)
    status = node.create_publisher(ControlStatus, "control_status", qos.latched())
    opened_tab(page, "Steer")
    status.publish(ControlStatus(who=ControlStatus.PILOT, alpha=0.5, reason="the tester holds"))
    told = page.locator("[data-twinloop=pilot]")
    expect(told).to_contain_text("the pilot commands: the tester holds", timeout=PATIENCE_MS)
    slider = page.locator("[role=slider]:visible").first
    slider.focus()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        if asked:
            break
    assert 0.5 < asked[-1] <= 1.0
