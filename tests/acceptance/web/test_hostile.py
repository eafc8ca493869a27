"""What models, tools and people write never becomes live on the page."""

import pytest

from tests.acceptance.web.browsing import HOSTILE, Gated
from tests.acceptance.web.conftest import Open
from tests.integration.server.serving import Served

LIVE = (
    "script:not([src='/static/main.js']), img, svg, iframe, object, embed, style, math, [onclick], [onerror], [onload]"
)


@pytest.mark.behaviour("web:page:hostile")
async def test_no_text_becomes_live(served: Served, open_page: Open) -> None:
    tools = {"tools": ["system_tools"], "tool_approvals": {"shell": True}}
    tab = await open_page(served.new_client(), await served.agent(Gated(), **tools))
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    await tab.say(HOSTILE)
    await tab.shows("<script>", ".answer")
    await tab.page.click("text=Approve")
    await tab.page.click(".tool summary")
    await tab.shows("onerror", ".tool .part")
    await tab.at_rest(2)
    await tab.shows("<script>", ".sidebar .title")
    await tab.shows("<script>", "h1")
    await tab.page.reload()
    await tab.at_rest(2)
    await tab.page.click(".tool summary")
    await tab.shows("onerror", ".tool .part")
    assert await tab.page.evaluate("window.hacked") is None
    assert await tab.page.locator(LIVE).count() == 0
    links = await tab.page.evaluate("[...document.querySelectorAll('main a')].map(a => [a.href, a.rel, a.target])")
    outside = [link for link in links if not link[0].startswith(tab.url)]
    assert {link[0].split("/")[2] for link in outside} == {"good.example", "auto.example", "spy.example"}
    assert all("noopener" in rel and target == "_blank" for _, rel, target in outside)
    assert all(url.startswith(tab.url) for url in asked)


@pytest.mark.behaviour("web:page:markdown")
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_growing_text_is_drawn_as_the_whole(served: Served, open_page: Open, step: int) -> None:
    tab = await open_page(served.new_client(), await served.agent(Gated()))
    text = (
        HOSTILE
        + "\n\n# Title\n\n1. one\n\n   more\n2. two\n\n> quote\n\n```python\ndef f():\n    pass\n```\n\nend *here*"
    )
    both = """async ([text, step]) => {
      const { Growing } = await import("/static/markdown.js");
      const [whole, grown] = [document.createElement("div"), document.createElement("div")];
      new Growing(whole).draw(text, true);
      const growing = new Growing(grown);
      for (let to = 0; to < text.length; to += step) growing.draw(text.slice(0, to), false);
      growing.draw(text, true);
      return [whole.innerHTML, grown.innerHTML];
    }"""
    whole, grown = await tab.page.evaluate(both, [text, step])
    assert grown == whole
    assert '<span class="hljs-keyword">def</span>' in whole
