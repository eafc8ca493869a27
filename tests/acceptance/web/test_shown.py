"""Logs that are long, large or rare, as the page shows them."""

import pytest

from tests.acceptance.web.conftest import Open
from tests.acceptance.web.made_up import MadeUp, answer, run

URL = "https://login.example/authorize?client=flux&state=" + "x" * 300


def elicited(url: str) -> dict[str, object]:
    return {
        "type": "elicitation", "id": "q1", "call": "c1", "mode": "url", "message": "Please sign in.",
        "server_name": "files", "elicitation_id": "e1", "url": url,
    }  # fmt: skip


@pytest.mark.behaviour("web:shown:long")
async def test_a_long_session_opens_at_its_end_and_reads_back(open_page: Open) -> None:
    server = MadeUp([entry for n in range(1_250) for entry in run(n, answer(f"m{n}", f"answer {n}"))])
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows("answer 1249", ".answer")
    assert server.asked == [(4_800, 200)]  # however long it is
    assert await tab.page.locator(".answer").count() == 50
    assert await tab.page.locator(".answer").last.is_visible()
    while await tab.page.locator("button.older").count():
        before = len(server.asked)
        await tab.page.click("button.older")
        await tab.page.wait_for_function(
            "n => document.querySelectorAll('.answer').length === n", arg=50 * (before + 1)
        )
    assert (await tab.said())[::1249] == ["ask 0", "ask 1249"]


@pytest.mark.behaviour("web:shown:large")
async def test_a_large_message_is_shown_whole(open_page: Open) -> None:
    text = "\n\n".join(f"Paragraph **{n}** with `code` and some words to fill a line." for n in range(3_500))
    tab = await open_page(MadeUp(run(1, answer("m1", text))).client(), path="/#/s/made-up")
    await tab.shows("Paragraph 3499", ".answer")
    assert len(text) > 200_000
    assert await tab.page.locator(".answer strong").count() == 3_500


@pytest.mark.behaviour("web:shown:elicitation")
async def test_an_address_is_shown_in_full_and_opened_by_a_click_alone(open_page: Open) -> None:
    server = MadeUp(run(1, elicited(URL), end=False))
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows("files", ".question h3")
    await tab.shows("Please sign in.", ".question")
    assert await tab.page.locator(".address").inner_text() == URL
    assert len(tab.page.context.pages) == 1
    await tab.page.context.route("https://login.example/**", lambda route: route.fulfill(body="hello"))
    async with tab.page.context.expect_page() as opening:
        await tab.page.get_by_text("Open and continue").click()
    assert (await opening.value).url == URL
    await tab.page.bring_to_front()
    await tab.shows("Accepted", ".answered")
    assert [given["decision"] for given in server.answers] == ["accept"]


@pytest.mark.behaviour("web:shown:elicitation")
@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x"])
async def test_what_is_no_web_address_cannot_be_opened(open_page: Open, url: str) -> None:
    server = MadeUp(run(1, elicited(url), end=False))
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows(url, ".address")
    assert await tab.page.locator(".question a").count() == 0
    await tab.page.get_by_text("Decline").click()
    await tab.shows("Declined", ".answered")


@pytest.mark.behaviour("web:shown:form")
async def test_a_form_is_filled_in(open_page: Open) -> None:
    schema = {
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "sure": {"type": "boolean"}},
        "required": ["name"],
    }
    server = MadeUp(run(1, {**elicited(""), "url": None, "mode": "form", "schema": schema}, end=False))
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.page.get_by_label("name *").fill("Ann")
    await tab.page.get_by_label("age", exact=True).fill("42")
    await tab.page.get_by_label("sure").check()
    await tab.page.locator(".fields button.primary").press("Enter")
    await tab.page.locator(".answered").wait_for()
    assert server.answers == [{"decision": "accept", "content": {"name": "Ann", "age": 42, "sure": True}}]


@pytest.mark.behaviour("web:shown:children")
async def test_sub_agents_are_shown_beside_the_conversation(open_page: Open) -> None:
    call = {"id": "c1", "name": "delegate", "args": {"agent": "writer"}}
    log = run(
        1,
        {**answer("m1", "I delegate."), "calls": [call]},
        {"type": "subagent", "child": "child-1", "status": "started", "agent": "writer", "call": "c1"},
        {"type": "subagent", "child": "child-1", "status": "done", "agent": "writer", "call": "c1"},
        {
            "type": "tool_done",
            "call": "c1",
            "name": "delegate",
            "status": "error",
            "outcome": "timeout",
            "content": "late",
        },
        {"type": "something_new", "field": 1},
        answer("m2", "So it is."),
    )
    tab = await open_page(MadeUp(log).client(), path="/#/s/made-up")
    await tab.shows("writer", ".panel .children li.done")
    await tab.shows("timed out", ".tool.timeout")
    assert await tab.page.locator(".tool .child a").get_attribute("href") == "#/s/child-1"
    assert await tab.answers() == ["I delegate.", "So it is."]


@pytest.mark.behaviour("web:shown:fork")
@pytest.mark.parametrize("can_fork", [True, False])
async def test_a_session_is_forked_where_the_server_can(open_page: Open, can_fork: bool) -> None:
    server = MadeUp([*run(1, answer("m1", "one")), *run(2, answer("m2", "two"))])
    server.can_fork = can_fork
    tab = await open_page(server.client(), path="/#/s/made-up")
    await tab.shows("two", ".answer")
    await tab.shows("helper", ".sidebar strong")
    assert await tab.page.locator(".said .fork").count() == (2 if can_fork else 0)
    if can_fork:
        await tab.page.locator(".said .fork").last.click()
        await tab.page.wait_for_url("**/#/s/made-up-too")
        assert server.forked == [{"at": 4}]
        assert await tab.page.input_value("textarea") == "ask 2"
