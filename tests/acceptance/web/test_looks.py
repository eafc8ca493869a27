"""What the page looks like where it once was ugly, and how it is used without a mouse."""

import re

import pytest

from tests.acceptance.web.conftest import Open
from tests.acceptance.web.made_up import MadeUp, answer, run

TABLE = "| Item | In stock | Reorder at | Price |\n|---|---|---|---|\n| Green tea, 100 g | 4 | 20 | $3.80 |"
STEPS = ("done", "running", "pending")


@pytest.mark.behaviour("web:looks:list")
async def test_the_signs_of_sessions_at_work_are_dots(open_page: Open) -> None:
    server = MadeUp(run(1, answer("m1", "one")))
    states = ("running", "waiting", "idle", "ended")
    server.rows = [
        {"id": state, "title": state, "state": state, "waiting_for": None, "updated_at": 0} for state in states
    ]
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows("working", ".sidebar li")
    sizes = await tab.page.locator(".dot").evaluate_all(
        "dots => dots.map((dot) => [dot.offsetWidth, dot.offsetHeight])"
    )
    assert len(sizes) == 4
    assert {tuple(size) for size in sizes} == {(7, 7)}
    heights = await tab.page.locator(".sidebar li").evaluate_all("rows => rows.map((row) => row.offsetHeight)")
    assert len(set(heights)) == 1


@pytest.mark.behaviour("web:looks:phone")
async def test_on_a_phone_nothing_is_wider_than_the_screen_and_words_stay_whole(open_page: Open) -> None:
    steps = [{"name": f"step {state}", "state": state, "description": "", "depends_on": []} for state in STEPS]
    server = MadeUp(run(1, {"type": "plan", "steps": steps}, answer("m1", TABLE)))
    tab = await open_page(server.client(), path="/#/s/made-up", width=360)
    await tab.shows("Price", "th")
    assert await tab.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    boxes = "cells => cells.map((cell) => { const all = document.createRange(); all.selectNodeContents(cell); "
    boxes += "return all.getClientRects().length; })"
    words = tab.page.locator("th, td").filter(has_text=re.compile(r"^\S+$"))
    assert await words.evaluate_all(boxes) == [1] * 5
    await tab.shows("step running", ".panel summary")
    assert await tab.page.locator(".top .spent").evaluate("spent => getComputedStyle(spent).display") != "none"


@pytest.mark.behaviour("web:keyboard:drawer")
async def test_the_drawer_takes_the_focus_and_gives_it_back(open_page: Open) -> None:
    tab = await open_page(MadeUp(run(1, answer("m1", "one"))).client(), path="/#/s/made-up", width=390)
    await tab.shows("one", ".answer")
    await tab.page.locator(".menu").focus()
    await tab.page.keyboard.press("Enter")
    await tab.page.wait_for_function("() => document.activeElement.matches('.sidebar .new')")
    assert await tab.page.locator(".stage").get_attribute("inert") is not None
    await tab.page.keyboard.press("Escape")
    await tab.page.wait_for_function("() => document.activeElement.matches('.menu')")
    assert await tab.page.locator(".sidebar.open").count() == 0


@pytest.mark.behaviour("web:plan:read-aloud")
async def test_the_state_of_a_step_is_not_told_by_its_sign_alone(open_page: Open) -> None:
    steps = [{"name": state, "state": state, "description": "", "depends_on": []} for state in (*STEPS, "failed")]
    tab = await open_page(
        MadeUp(run(1, {"type": "plan", "steps": steps}, answer("m1", "one"))).client(), path="/#/s/made-up"
    )
    await tab.shows("1 of 4", ".panel summary")
    said = [" ".join(text.split()) for text in await tab.page.locator(".steps li > span").all_text_contents()]
    assert said == ["done, done", "running, in work", "pending, to do", "failed, failed"]


@pytest.mark.behaviour("web:question:elsewhere")
async def test_a_question_that_was_answered_elsewhere_says_so(open_page: Open) -> None:
    asked = {"type": "input_required", "id": "q1", "call": "c1", "question": "Which?", "options": ["a"]}
    server = MadeUp(run(1, asked, end=False))
    server.decided = True
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.page.get_by_role("button", name="a", exact=True).click()
    await tab.shows("This was answered elsewhere meanwhile.", ".question .problem")


@pytest.mark.behaviour("web:ended:copy")
async def test_an_ended_session_goes_on_in_a_copy(open_page: Open) -> None:
    server = MadeUp([*run(1, answer("m1", "one")), {"type": "session_end", "reason": "max_turns", "turns": 1}])
    server.can_fork = True
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows("as many turns as it may have", ".note")
    await tab.page.get_by_text("Go on in a copy").click()
    await tab.page.wait_for_url("**/#/s/made-up-too")
    assert server.forked == [{}]


@pytest.mark.behaviour("web:shown:attached")
async def test_what_stands_beside_a_message_is_named(open_page: Open) -> None:
    log = run(1, answer("m1", "one"))
    log[0]["parts"] += [
        {"type": "image", "data": "AA==", "media_type": "image/png"},
        {"type": "file", "data": "AA==", "media_type": "application/pdf", "name": "<b>paper.pdf"},
    ]
    tab = await open_page(MadeUp(log).client(), path="/#/s/made-up")
    await tab.shows("with an image, <b>paper.pdf", ".said small")
