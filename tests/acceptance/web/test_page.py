"""Talking to an agent on the page, in a real browser."""

import pytest

from tests.acceptance.web.browsing import Gated
from tests.acceptance.web.conftest import Open
from tests.integration.server.serving import Served

TOOLS = {"tools": ["system_tools", "ask_user"], "tool_approvals": {"shell": True}}
PLANS = {"planning": True, "approve_plan": True}


@pytest.mark.behaviour("web:chat:stream")
async def test_an_answer_is_seen_while_it_comes(served: Served, open_page: Open) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say One **two** three.")
    await tab.shows("One", ".answer.growing")
    assert await tab.page.locator(".state").inner_text() == "Working"
    model.gate.set()
    await tab.at_rest(1)
    assert await tab.answers() == ["One two three."]
    assert await tab.page.locator(".answer strong").inner_text() == "two"
    assert await tab.said() == ["say One **two** three."]
    await tab.shows("say One **two** three.", ".sidebar .title")
    await tab.shows("tokens", ".spent")


@pytest.mark.behaviour("web:chat:reload")
async def test_a_reload_in_the_middle_loses_and_doubles_nothing(served: Served, open_page: Open) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say alpha beta gamma")
    await tab.shows("alpha", ".answer.growing")
    await tab.page.reload()
    await tab.shows("alpha", ".answer.growing")
    other = await open_page(beside=tab)
    await other.shows("alpha", ".answer.growing")
    model.gate.set()
    for one in (tab, other):
        await one.at_rest(1)
        assert await one.answers() == ["alpha beta gamma"]
        assert await one.said() == ["say alpha beta gamma"]
    assert tab.page.url == f"{tab.url}/#/s/{tab.session}"
    assert await tab.page.evaluate("localStorage.length + sessionStorage.length") == 0


@pytest.mark.behaviour("web:chat:tabs")
async def test_two_tabs_show_one_session(served: Served, open_page: Open) -> None:
    first = await open_page(served.new_client(), await served.agent(Gated(), **TOOLS))
    await first.say("hello")
    await first.at_rest(1)
    second = await open_page(beside=first)
    await second.at_rest(1)
    await first.say("run echo $((40 + 2))")
    await second.page.click("text=Approve")
    await first.page.locator(".answered").filter(has_text="Approved").wait_for()
    for tab in (first, second):
        await tab.at_rest(3)
        assert await tab.page.locator(".question").count() == 0
        assert await tab.said() == ["hello", "run echo $((40 + 2))"]
        await tab.page.click(".tool summary")
        await tab.shows("42", ".tool .inside")


@pytest.mark.behaviour("web:chat:questions")
async def test_calls_are_approved_and_rejected_in_place(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated(), **TOOLS))
    await tab.say("run echo one > one.txt")
    question = tab.page.locator(".question")
    await question.filter(has_text="echo one > one.txt").wait_for()
    await question.get_by_text("Reject…").click()
    await tab.page.keyboard.type("not today")
    await tab.page.keyboard.press("Enter")
    await tab.shows("denied", ".tool.denied")
    await tab.shows("not today", ".answered")
    await tab.say("ask")
    await question.get_by_role("button", name="green").click()
    await tab.shows("green", ".answered")
    await tab.say("ask")
    await question.get_by_label("Answer").fill("none of these")
    await tab.page.keyboard.press("Enter")
    await tab.shows("none of these", ".answered")
    await tab.say("run echo again")
    await question.get_by_role("button", name="Always").click()
    await tab.shows("Approved, always", ".answered")
    await tab.say("run echo unasked")
    await tab.page.locator(".tool.success").filter(has_text="echo unasked").wait_for()


@pytest.mark.behaviour("web:chat:plan")
async def test_a_plan_is_edited_approved_and_shown(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated(), **TOOLS, **PLANS))
    await tab.say("plan")
    question = tab.page.locator(".question")
    await question.get_by_role("button", name="Edit").click()
    await question.locator("ol input").first.fill("Look around first")
    await question.get_by_role("button", name="Approve as edited").click()
    await tab.shows("Plan", ".panel")
    await tab.at_rest(1)
    steps = tab.page.locator(".panel .plan li")
    assert await steps.count() == await tab.page.locator(".panel .plan li.done").count() > 1
    assert "Look around first" in (await steps.first.get_attribute("title") or "")


@pytest.mark.behaviour("web:chat:stop")
async def test_escape_stops_a_run_which_may_be_tried_again(served: Served, open_page: Open) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say never ending")
    await tab.shows("never", ".answer.growing")
    await tab.page.keyboard.press("Escape")
    await tab.shows("Stopped.", ".note")
    model.gate.set()
    await tab.page.get_by_role("button", name="Try again").click()
    await tab.page.locator(".answer").filter(has_text="never ending").wait_for()
    await tab.say("fail")
    await tab.shows("the key was refused", ".failed")
    await tab.page.get_by_role("button", name="Try again").wait_for()


@pytest.mark.behaviour("web:chat:queue")
async def test_what_is_said_meanwhile_waits_for_its_turn(served: Served, open_page: Open) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say first words")
    await tab.shows("first", ".answer.growing")
    await tab.say("say second words")
    await tab.shows("queued", ".said.waiting")
    model.gate.set()
    await tab.at_rest(2)
    assert await tab.answers() == ["first words", "second words"]
    assert await tab.said() == ["say first words", "say second words"]


@pytest.mark.behaviour("web:list:search")
async def test_sessions_are_found_by_words_and_resumed(served: Served, open_page: Open) -> None:
    client = served.new_client()
    model = Gated()
    model.gate.set()
    agent = await served.agent(model)
    for text in ("say apples are red", "say pears are green"):
        async for _ in (await client.start_session(agent)).send(text):
            pass
    tab = await open_page(client, agent)
    await tab.page.locator(".sidebar li").nth(1).wait_for()
    await tab.page.fill("input[type=search]", "apples")
    await tab.page.wait_for_function("() => document.querySelectorAll('.sidebar li').length === 1")
    await tab.page.click(".sidebar li a")
    await tab.at_rest(1)
    assert await tab.answers() == ["apples are red"]
    await tab.page.get_by_role("link", name="New chat").click()
    await tab.page.locator(".welcome").wait_for()
    await tab.page.go_back()
    await tab.shows("apples are red", ".answer")


@pytest.mark.behaviour("web:list:rename")
async def test_a_session_is_renamed(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated()))
    await tab.say("hello")
    await tab.at_rest(1)
    await tab.page.get_by_role("button", name="Rename").click()
    await tab.page.keyboard.type("A better title")
    await tab.page.keyboard.press("Enter")
    await tab.shows("A better title", ".sidebar .title")
    await tab.shows("A better title", "h1")


@pytest.mark.behaviour("web:page:keyboard")
async def test_the_keyboard_is_enough(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated(), **TOOLS))
    keyboard = tab.page.keyboard
    await tab.page.locator("textarea:focus").wait_for()
    await keyboard.type("run echo a")
    await keyboard.press("Shift+Enter")
    await keyboard.type("echo b")
    await keyboard.press("Enter")
    await tab.page.locator(".question:focus").wait_for()
    for _ in range(2):
        await keyboard.press("Tab")
    assert await tab.page.locator(":focus").inner_text() == "Approve"
    await keyboard.press("Enter")
    await tab.at_rest(2)
    assert await tab.said() == ["run echo a\necho b"]
    await tab.page.focus(".tool summary")
    await keyboard.press("Enter")
    await tab.shows("echo b", ".tool[open] .args")


@pytest.mark.behaviour("web:page:small")
async def test_a_small_screen_is_enough(served: Served, open_page: Open) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated(), **TOOLS), width=360, height=640)
    await tab.say("run echo " + "very_long_word" * 30)
    await tab.page.click("text=Approve")
    await tab.at_rest(2)
    assert await tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await tab.page.evaluate("document.querySelector('main').scrollWidth") <= 360
    await tab.page.click("button.menu")
    await tab.page.get_by_role("link", name="New chat").click()
    await tab.page.locator(".welcome").wait_for()
    await tab.page.locator(".sidebar").wait_for(state="hidden")


@pytest.mark.behaviour("web:chat:fork", "web:chat:export")
async def test_a_conversation_is_forked_before_a_message(served: Served, open_page: Open) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say One alpha")
    await tab.shows("One", ".answer.growing")
    await tab.say("hello")  # queued: it stands in the log before the answer
    model.gate.set()
    await tab.at_rest(2)
    source = tab.session
    async with tab.page.expect_download() as saved:
        await tab.page.get_by_role("link", name="Export").click()
    assert "One alpha" in (await (await saved.value).path()).read_text()
    await tab.page.locator(".said").last.hover()
    await tab.page.locator(".said .fork").last.click()
    await tab.shows("Forked from")
    assert tab.session != source
    assert await tab.answers() == ["One alpha"]
    assert await tab.page.input_value("textarea") == "hello"
    await tab.page.keyboard.press("Enter")
    await tab.at_rest(2)
    assert await tab.said() == ["say One alpha", "hello"]


@pytest.mark.behaviour("web:chat:modes")
@pytest.mark.parametrize("mode", ["queue", "steer", "interrupt"])
async def test_a_message_during_a_run_goes_as_the_person_chose(served: Served, open_page: Open, mode: str) -> None:
    model = Gated()
    tab = await open_page(served.new_client(), await served.agent(model))
    await tab.say("say One alpha")
    await tab.shows("One", ".answer.growing")
    await tab.page.locator("textarea").fill("say Two")
    if mode != "queue":  # what Enter means without a choice
        await tab.page.get_by_label("When it is read").select_option(mode)
    await tab.page.keyboard.press("Enter")
    if mode == "interrupt":
        await tab.shows("Two", ".answer.growing")  # the interrupted run has ended, the next one speaks
    else:
        await tab.shows("say Two", ".said.waiting:not(.sending)")
    model.gate.set()
    await tab.shows("Two", ".answer:not(.growing)")
    log = [row async for row in served.client.pages(f"/sessions/{tab.session}/events")]
    assert [row["mode"] for row in log if row["type"] == "user_message"] == ["queue", mode]
    assert sum(row["type"] == "cancelled" for row in log) == (mode == "interrupt")
    assert await tab.said() == ["say One alpha", "say Two"]
